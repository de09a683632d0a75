"""One step of a build, done once: the unit that every engine runs, and `edgellm fleet step DIGEST`.

Its folder has the step's digest as name, and a lock. Whoever comes second waits, and finds the
result. After `kill -9` the next call goes on, or begins again, to the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.edgechunks import chunk_digests
from edgellm.edgefile import read_header
from edgellm.errors import FormatError

from ..calibrate.work import make_folder
from ..compress.measure import Judge
from ..compress.recipe import TextOptions, read_step
from ..compress.step import EDGE, Progress, StepInput, StepResult, Texts
from ..compress.store import Record, Spent, StepStore, digest_of, write_record
from ..report import peak_rss_bytes
from .describe import describe
from .node import DESCRIBE, MEASURE, Node, check_environment, check_stamps, read_node

_DIGITS = 32


@dataclass(frozen=True)
class Done:
    """A step that is done. path: of what it made. was_done: before this call. figures: its own.
    peak_rss_bytes: of the process that did it, None where that is not known."""

    digest: str
    path: Path
    was_done: bool
    seconds: float
    figures: dict[str, Any]
    warnings: tuple[str, ...]
    peak_rss_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "warnings": list(self.warnings)}


def done_step(work: Path, node: Node) -> Done | None:
    """The result of a step, hashed and found right; None where there is none."""
    folder = step_folder(work, node.digest)
    return _found(StepStore(folder), node, True) if folder.is_dir() else None


def run_step(work: Path, digest: str, progress: Progress = lambda *_: None) -> Done:
    """Does a step of `work`, unless it was done. Waits while another process does it.

    FormatError where there is no such step, a step that it needs was not done, or an input has
    changed; UnsupportedError for other versions of edgellm or torch than the plan's; else what the
    step raises. An exception of `progress` cancels; what was done is kept.
    """
    node = read_node(work, digest)
    store = StepStore(step_folder(work, digest))
    with store.locked(wait=True):
        found = _found(store, node, True)
        if found is None:
            check_environment(node)
            check_stamps(node)
            _do(work, node, store, progress)
            found = _found(store, node, False)
            assert found is not None
    return found


def _found(store: StepStore, node: Node, was_done: bool) -> Done | None:
    found = store.find(node.do, node.digest)
    if found is None:
        return None
    record, path = found
    figures = dict(record.figures)
    peak = figures.pop("peak_rss_bytes", None)
    warnings = tuple(record.warnings)
    return Done(node.digest, path, was_done, record.seconds, figures, warnings, peak)


def _do(work: Path, node: Node, store: StepStore, progress: Progress) -> None:
    folder = store.work(node.do, node.digest)
    spent = Spent(folder)

    def show(what: str, n_done: int, n_total: int) -> None:
        spent.note()
        progress(what, n_done, n_total)

    show("begins", 0, 1)
    with store.new(node.do, node.digest) as made:
        out, result = _RUN.get(node.do, _run_recipe_step)(work, node, made, folder, show)
        figures = {**result.figures, "peak_rss_bytes": peak_rss_bytes()}
        record = Record(
            node.digest,
            out.name,
            digest_of(out),
            spent.seconds,
            result.tokens,
            figures,
            list(result.warnings),
        )
        write_record(made, record)


def _run_recipe_step(
    work: Path, node: Node, made: Path, folder: Path, show: Progress
) -> tuple[Path, StepResult]:
    chosen = read_step({"do": node.do, **node.settings}, Path(node.base), node.label)
    if chosen.digest(digest_of) != node.about.get("settings"):
        message = f"{node.label}: its settings have changed; start the build again"
        raise FormatError(message, code="fleet_changed")
    source = Path(node.source)
    out = made / ("model.edge" if chosen.step.gives == EDGE else "model")
    shared = None
    if node.shared:
        shared = work / "shared" / node.shared[:_DIGITS]
        make_folder(shared)
    given = StepInput(
        source=source,
        model=_input(work, node.inputs[-1]) if node.inputs else source,
        checkpoint=_input(work, node.checkpoint) if node.checkpoint else source,
        out=out,
        work=folder,
        texts=Texts(**{name: tuple(map(Path, paths)) for name, paths in node.texts.items()}),
        n_threads=int(node.about["threads"]),
        progress=show,
        shared=shared,
    )
    return out, chosen.step.run(chosen.options, given)


def _run_measure(
    work: Path, node: Node, made: Path, folder: Path, show: Progress
) -> tuple[Path, StepResult]:
    """The divergence from the source, as `edgellm compress` measures it."""
    show("held-out text", 0, 1)
    source, model = Path(node.source), _input(work, node.inputs[-1])
    valid = tuple(map(Path, node.texts["valid"]))
    texts = TextOptions(valid=valid, **node.settings)
    judge = Judge(StepStore(folder), source, node.about["source"], texts, node.about["threads"])
    figures = judge.measure(model, EDGE, digest_of(model))
    assert figures is not None  # there is text
    return _written(made / "figures.json", figures), StepResult(figures=figures)


def _run_describe(
    work: Path, node: Node, made: Path, folder: Path, show: Progress
) -> tuple[Path, StepResult]:
    """Digests and sizes of a file, for indexes and updates."""
    del folder
    show("hashing", 0, 1)
    model = _input(work, node.inputs[-1])
    header = read_header(model)
    chunks = made / "model.chunks"
    try:
        chunks.write_bytes(chunk_digests(header, model))
    except OSError as error:
        raise FormatError(f"{chunks}: cannot be written: {error}", "file_write_failed") from error
    figures = describe(header, digest_of(model))
    return chunks, StepResult(figures=figures)


_Run = Callable[[Path, Node, Path, Path, Progress], tuple[Path, StepResult]]
_RUN: dict[str, _Run] = {MEASURE: _run_measure, DESCRIBE: _run_describe}


def _input(work: Path, digest: str) -> Path:
    node = read_node(work, digest)
    done = done_step(work, node)
    if done is None:
        message = f"{node.label}: has not been done; first: edgellm fleet step {digest}"
        raise FormatError(message, code="fleet_step")
    return done.path


def _written(path: Path, value: dict[str, Any]) -> Path:
    path.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
    return path


def step_folder(work: Path, digest: str) -> Path:
    """Of one step, with its lock."""
    return work / "steps" / digest[:_DIGITS]
