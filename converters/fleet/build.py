"""A whole build: plan, what was done before, the rest on an engine, and the artefacts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from edgellm.errors import DeviceError, InvalidArgumentError

from ..calibrate.work import make_folder
from .artefacts import write_artefacts
from .assemble import assemble, earlier_contents
from .graph import Graph, plan_graph
from .local import LocalEngine, default_memory_bytes
from .manifest import FleetManifest
from .mirror import Mirror
from .node import write_node
from .report import FleetReport
from .schedule import Engine, ProgressFn, Schedule
from .step import done_step

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class EngineOptions:
    """engine: of ENGINES. memory_bytes: of all steps at once, local; 0: most of what is free.
    workers: at once; 0: as many as cores. address: of a Ray cluster; "": one on this machine.
    artefacts: a URL that fsspec knows, where steps are sent and looked for; "": in the work folder
    alone, which all machines see."""

    engine: str = "local"
    memory_bytes: int = 0
    workers: int = 0
    address: str = ""
    artefacts: str = ""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            message = f"engine must be one of {', '.join(ENGINES)}, but is {self.engine!r:.60}"
            raise InvalidArgumentError(message, code="invalid_argument")
        if not (0 <= self.memory_bytes < 1 << 60 and 0 <= self.workers <= 4096):
            message = "memory is 0 to 2**60 bytes, workers are 0 to 4096"
            raise InvalidArgumentError(message, code="invalid_argument")
        if self.address and self.engine != "ray":
            message = f"an address is of a Ray cluster, but the engine is {self.engine}"
            raise InvalidArgumentError(message, code="invalid_argument")


@dataclass(frozen=True)
class FleetPlan:
    """What a build would do. seconds: estimates of what is left: of all steps one by one, and of
    the longest chain of them. memory_bytes: of the largest step."""

    name: str
    n_steps: int
    n_done: int
    n_without_sharing: int
    seconds: float
    longest_seconds: float
    memory_bytes: int
    steps: tuple[dict[str, Any], ...]
    failures: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "steps": list(self.steps)}


def plan_fleet(manifest: FleetManifest) -> FleetPlan:
    """Nothing is written. Raises what plan_graph() raises."""
    graph = plan_graph(manifest)
    work = manifest.work_dir
    is_done = {node.digest: done_step(work, node) is not None for node in graph.nodes.values()}
    left = [node for node in graph.nodes.values() if not is_done[node.digest]]
    steps = [
        {
            "digest": node.digest,
            "label": node.label,
            "is_done": is_done[node.digest],
            "seconds": node.seconds,
            "memory_bytes": node.memory_bytes,
            "inputs": list(node.inputs),
        }
        for node in graph.nodes.values()
    ]
    return FleetPlan(
        manifest.name,
        len(steps),
        sum(is_done.values()),
        graph.n_without_sharing,
        sum(node.seconds for node in left),
        _longest(graph, is_done),
        max((node.memory_bytes for node in left), default=0),
        tuple(steps),
        {name: str(error) for name, error in graph.failures.items()},
    )


def write_steps(manifest: FleetManifest, artefacts: str = "") -> list[list[str]]:
    """Writes all steps into the work folder, for queues that call `edgellm fleet step`; their
    digests by stages, of which each needs nothing but those before. What was done is left out.
    artefacts: as of EngineOptions."""
    graph = plan_graph(manifest)
    work = manifest.work_dir
    mirror = Mirror(artefacts) if artefacts else None
    stages: dict[str, int] = {}
    found: dict[int, list[str]] = {}
    for digest, node in graph.nodes.items():
        write_node(work, node)
        if mirror is not None:
            mirror.send_node(work, digest)
        before = (stages[one] for one in (*node.inputs, *node.after))
        stages[digest] = max(before, default=-1) + 1
        if done_step(work, node) is None:
            found.setdefault(stages[digest], []).append(digest)
    return [found[stage] for stage in sorted(found)]


def build_fleet(
    manifest: FleetManifest,
    options: EngineOptions | None = None,
    *,
    progress: ProgressFn | None = None,
    engine: Callable[[], Engine] | None = None,
) -> FleetReport:
    """Does what is left and writes `manifest.out`. What fails takes only what needs it along; the
    report says so, and the others are delivered. Called again, it goes on; the same inputs, recipes
    and versions of edgellm and torch give the same bytes.

    engine: makes one, in place of what the options say. DeviceError while another build works in
    the folder; FormatError for texts, and where `out` cannot be written; UnsupportedError where the
    engine is not installed. An exception of `progress` cancels.
    """
    begin = time.monotonic()
    options = options or EngineOptions()
    mirror = Mirror(options.artefacts) if options.artefacts else None
    work = manifest.work_dir
    make_folder(work)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        message = f"{work}: another build works there; let it finish, or end it"
        raise DeviceError(message, code="store_busy") from None
    try:
        graph = plan_graph(manifest)
        schedule = Schedule(work, graph, progress)
        if mirror is not None:
            for node in graph.nodes.values():
                mirror.send_node(work, node.digest)
                mirror.fetch_step(work, node)
        schedule.find_done()
        if not schedule.is_finished:
            schedule.run(engine() if engine else _engine(manifest, options))
        return _delivered(manifest, graph, schedule, begin)
    finally:
        lock.release()


def _delivered(
    manifest: FleetManifest, graph: Graph, schedule: Schedule, begin: float
) -> FleetReport:
    made = assemble(manifest, graph, schedule.outcomes)
    index = None
    if made.index is not None:
        contents = [*earlier_contents(manifest, made.index), *made.contents.values()]
        index = write_artefacts(manifest.out, manifest.layout, made.index, contents)
    return FleetReport(
        manifest.name,
        manifest.version,
        manifest.out,
        index,
        tuple(made.variants),
        tuple(schedule.outcomes[digest] for digest in graph.nodes),
        dict(graph.failures),
        graph.n_without_sharing,
        time.monotonic() - begin,
    )


def _engine(manifest: FleetManifest, options: EngineOptions) -> Engine:
    work = manifest.work_dir.absolute()
    if options.engine == "ray":
        from .ray_engine import RayEngine

        return RayEngine(work, options.address, options.artefacts)
    memory_bytes = options.memory_bytes or default_memory_bytes()
    workers = options.workers or os.cpu_count() or 1
    return LocalEngine(work, memory_bytes, workers, options.artefacts)


def _longest(graph: Graph, is_done: dict[str, bool]) -> float:
    """Of what is left; what is done takes no time."""
    ends: dict[str, float] = {}
    for node in graph.nodes.values():
        before = max((ends[one] for one in (*node.inputs, *node.after)), default=0.0)
        ends[node.digest] = before + (0.0 if is_done[node.digest] else node.seconds)
    return max(ends.values(), default=0.0)
