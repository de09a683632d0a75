"""Writes a bundle: a model's graphs for one target, whole or not at all, with what was measured."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from edgellm.errors import InvalidArgumentError, UnsupportedError
from edgellm.npu.bundle import TOKENIZER, Bundle, hashed, write_description
from edgellm.npu.executors import runners_of
from edgellm.npu.facts import HOST, PLACEMENTS, GraphFacts
from edgellm.npu.session import GraphSession

from ..export.edge_source import is_edge
from ..export.whole import check_target, whole_directory
from ..report import peak_rss_bytes
from .compare import Difference, compare_with_cpu
from .decoder import StepShape, decoder_graph
from .ir import Graph, Int4
from .split import (
    StepPlan,
    check_ops,
    plan_steps,
    split_spans,
    stage_sizes,
    stored_bytes,
)
from .targets import EMBED, HEAD, MakeWriter, Target, Writing, find_target
from .weights import NpuWeights, open_weights
from .written import GraphWriter, Written

MAX_CONTEXT = 1 << 17
Progress = Callable[[str, int, int], None]  # what is written, graphs done, graphs in all


@dataclass(frozen=True)
class NpuOptions:
    """rows: tokens of a step, one graph each: for one token, one with guesses, and prompts.
    context: slots of the largest bucket; buckets: further, smaller ones. bits: a weight; None: 4,
    or as a `.edge` file has them. max_bytes: of the constants of one graph; None: the target's.
    embed, head: "npu", "host" or None for what the target has. share: one context binary for the
    graphs of a part, of Qualcomm's targets; all others always share."""

    rows: tuple[int, ...] = (1, 4, 64)
    context: int = 512
    buckets: tuple[int, ...] = ()
    bits: int | None = None
    max_bytes: int | None = None
    embed: str | None = None
    head: str | None = None
    share: bool = False

    def __post_init__(self) -> None:
        for name, where in (("embed", self.embed), ("head", self.head)):
            if where not in (None, *PLACEMENTS):
                raise InvalidArgumentError(
                    f"{name} must be one of {', '.join(PLACEMENTS)}, but is '{where}'",
                    code="invalid_argument",
                )
        if 1 not in self.rows or not all(1 <= n <= 1024 for n in self.rows):
            raise InvalidArgumentError(
                f"rows must be 1 and others up to 1024, but are {self.rows}",
                code="invalid_argument",
            )
        if not all(1 <= n <= MAX_CONTEXT for n in (self.context, *self.buckets)):
            raise InvalidArgumentError(
                f"the context must be in 1..{MAX_CONTEXT}, but is {self.context}",
                code="invalid_argument",
            )

    def shapes(self) -> list[StepShape]:
        buckets = sorted({n for n in self.buckets if n < self.context} | {self.context})
        return [StepShape(n, bucket) for bucket in buckets for n in sorted(set(self.rows))]

    def on_host(self, target: Target) -> frozenset[str]:
        """The stages that are not for the NPU."""
        chosen = {EMBED: self.embed, HEAD: self.head}
        there = {stage for stage, where in chosen.items() if where == HOST}
        return frozenset(there | {one for one in target.on_host if chosen[one] is None})


@dataclass(frozen=True)
class PartReport:
    """A graph: its stages, bytes of constants (shared by the graphs of a part), operators by kind,
    and where it runs, "npu" or "host"."""

    name: str
    stages: tuple[str, ...]
    n_constant_bytes: int
    operators: dict[str, int]
    placement: str

    @property
    def n_ops(self) -> int:
        return sum(self.operators.values())


@dataclass(frozen=True)
class NpuReport:
    """difference: from the CPU runtime, where it was asked for; checked_by ran the graphs then."""

    path: Path
    target: str
    parts: tuple[PartReport, ...]
    n_bytes: int
    seconds: float
    peak_rss_bytes: int | None
    warnings: tuple[str, ...]
    difference: Difference | None = None
    checked_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def export_npu(
    src: Path,
    out: Path,
    target: str,
    options: NpuOptions | None = None,
    *,
    against: Path | None = None,
    progress: Progress | None = None,
) -> NpuReport:
    """Writes the folder `out`, which must not exist yet. against: the `.edge` file of the same
    model, whose logits on the CPU runtime the graphs' are compared with.

    UnsupportedError: what of the model has no graph, an operator that the target does not have, a
    missing package, weights that were rounded already; all before anything is compiled.
    """
    start = time.monotonic()
    chosen, options = find_target(target), options or NpuOptions()
    check_target(out, 0)
    with ExitStack() as stack:
        weights = stack.enter_context(open_weights(src, _stored_bits(src, chosen, options)))
        bits = options.bits or (4 if chosen.rounds else weights.bits)
        plan = _plan(weights, chosen, options, bits)
        on_host = weights
        if chosen.rounds and not is_edge(src):  # which the host's parts do not need
            on_host = stack.enter_context(open_weights(src, 16))
        with whole_directory(out) as folder:
            writing = Writing(folder, weights, plan, bits, options.share)
            written, parts = _write_parts(chosen, writing, on_host, progress)
            bundle = _bundle(weights, plan, chosen, bits, folder, written)
            difference = None
            if against is not None:
                session = _session(chosen, folder, bundle, written)
                difference = compare_with_cpu(session, against)
            report = NpuReport(
                path=out,
                target=target,
                parts=tuple(parts),
                n_bytes=sum(one.n_bytes for one in bundle.files),
                seconds=time.monotonic() - start,
                peak_rss_bytes=peak_rss_bytes(),
                warnings=weights.warnings,
                difference=difference,
                checked_by=chosen.checked_by if difference is not None else "",
            )
            kept = {key: value for key, value in report.to_dict().items() if key != "path"}
            write_description(folder, replace(bundle, report=kept))
    return report


def _session(
    target: Target, folder: Path, bundle: Bundle, written: Mapping[str, Written]
) -> GraphSession:
    """What was written, read again and run; or by its writer, where nothing else here runs it."""
    kept = {name: one.runner for name, one in written.items() if one.runner is not None}
    others = replace(bundle, graphs=tuple(one for one in bundle.graphs if one.name not in kept))
    if target.check_runners is not None:
        runners = target.check_runners(folder, others)
    else:
        runners = runners_of(folder, others, settings=target.check_settings)
    runners = {**runners, **kept}
    return GraphSession(bundle.facts, bundle.graphs, runners)


def _stored_bits(src: Path, target: Target, options: NpuOptions) -> int | None:
    """What the graphs' constants are read with."""
    if options.bits is not None and options.bits not in target.bits:
        raise InvalidArgumentError(
            f"target '{target.name}' has no weights of {options.bits} bits (it has: "
            f"{', '.join(map(str, target.bits))})",
            code="invalid_argument",
        )
    if is_edge(src):
        return None if target.rounds else options.bits
    if target.rounds:
        return 32
    return options.bits or (4 if 4 in target.bits else min(target.bits))


def _plan(weights: NpuWeights, target: Target, options: NpuOptions, bits: int) -> StepPlan:
    """Everything that can be refused without reading a weight is refused here."""
    if options.share and not target.may_share:
        raise InvalidArgumentError(
            f"target '{target.name}' always shares the weights of a part; leave that out",
            code="invalid_argument",
        )
    sizes = stage_sizes(weights, bits if target.rounds else None)
    limit = options.max_bytes or target.max_bytes
    on_host = options.on_host(target)
    spans = split_spans(sizes, len(weights.spec.layers), limit, on_host)
    graph = decoder_graph(weights, StepShape(1, 1))
    check_ops(graph, target.kinds, target.name, on_host)
    _check_bits(graph, target)
    return plan_steps(
        weights,
        options.shapes(),
        spans=spans,
        kv_dtype=target.kv_dtype,
        masked=target.masked(bits),
        stateful=target.stateful,
        on_host=on_host,
    )


def _check_bits(graph: Graph, target: Target) -> None:
    stored = any(isinstance(one, Int4) for one in graph.constants.values())
    if stored and 4 not in target.bits:
        raise UnsupportedError(
            f"target '{target.name}' has no weights of 4 bits, which the file holds; give a file "
            "in F16 or the source checkpoint",
            code="feature_unsupported",
        )


def _write_parts(
    target: Target, writing: Writing, on_host: NpuWeights, progress: Progress | None
) -> tuple[dict[str, Written], list[PartReport]]:
    """Part after part. on_host: the weights of those that stay there."""
    written: dict[str, Written] = {}
    reports: list[PartReport] = []
    writer = _writer(target, target.writer, writing)
    host_writer = writer
    if target.host_writer is not None:
        host_writer = _writer(target, target.host_writer, replace(writing, weights=on_host))
    n_graphs = len(writing.plan.graphs)
    for part, planned in groupby(writing.plan.graphs, key=lambda one: one[0].part):
        if progress is not None:
            progress(f"part {part}", len(written), n_graphs)
        graphs = []
        for facts, span, shape in planned:
            is_host = facts.placement == HOST
            weights = on_host if is_host else writing.weights
            graph = decoder_graph(weights, shape, span, target.kv_dtype)
            graph.name = facts.name
            graphs.append(graph)
            rounded_to = writing.bits if target.rounds and not is_host else None
            reports.append(_report_of(graph, facts, tuple(span.stages()), rounded_to))
        written |= (host_writer if is_host else writer).write(part, graphs)
    return written, reports


def _writer(target: Target, make: MakeWriter, writing: Writing) -> GraphWriter:
    try:
        return make(writing)
    except ImportError as error:
        raise UnsupportedError(
            f"target '{target.name}' needs {error.name}: pip install 'edgellm[{target.extra}]'",
            code="feature_unsupported",
        ) from error


def _report_of(
    graph: Graph, facts: GraphFacts, stages: tuple[str, ...], rounded_to: int | None
) -> PartReport:
    counts = dict(Counter(op.kind for op in graph.ops))
    n_bytes = stored_bytes(graph, rounded_to)
    return PartReport(facts.name, stages, n_bytes, counts, facts.placement)


def _bundle(
    weights: NpuWeights,
    plan: StepPlan,
    target: Target,
    bits: int,
    folder: Path,
    written: Mapping[str, Written],
) -> Bundle:
    paths = dict.fromkeys(path for one in written.values() for path in one.files)
    files = [file for path in paths for file in _files_of(path)]
    tokenizer = weights.tokenizer()
    if tokenizer is not None:
        files.append(folder / TOKENIZER)
        files[-1].write_bytes(tokenizer)
    entry = {
        name: one.entry.relative_to(one.base or folder).as_posix() for name, one in written.items()
    }
    return Bundle(
        target.name,
        plan.facts,
        plan.graph_facts,
        entry,
        hashed(folder, files),
        target.settings(bits),
        generations=target.generations,
    )


def _files_of(path: Path) -> list[Path]:
    """A file, or those in a folder."""
    if path.is_file():
        return [path]
    return sorted(one for one in path.rglob("*") if one.is_file())
