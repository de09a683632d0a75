"""Writes a bundle: a model's graphs for one target, whole or not at all, with what was measured."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.errors import InvalidArgumentError, UnsupportedError
from edgellm.npu.bundle import TOKENIZER, Bundle, hashed, write_description
from edgellm.npu.executors import runners_of
from edgellm.npu.session import GraphSession

from ..export.edge_source import is_edge
from ..export.whole import check_target, whole_directory
from ..report import peak_rss_bytes
from .compare import Difference, compare_with_cpu
from .decoder import StepShape, decoder_graph
from .split import StepPlan, check_ops, plan_steps, split_spans, stage_sizes
from .targets import Target, find_target
from .weights import NpuWeights, open_weights
from .written import GraphWriter, Written

MAX_CONTEXT = 1 << 17
Progress = Callable[[str, int, int], None]  # what is written, graphs done, graphs in all


@dataclass(frozen=True)
class NpuOptions:
    """rows: tokens of a step, one graph each: for one token, one with guesses, and prompts.
    context: slots of the largest bucket; buckets: further, smaller ones. bits: a weight; None: 4,
    or as a `.edge` file has them. max_bytes: of the constants of one graph; None: the target's."""

    rows: tuple[int, ...] = (1, 4, 64)
    context: int = 512
    buckets: tuple[int, ...] = ()
    bits: int | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
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


@dataclass(frozen=True)
class PartReport:
    """A graph: its stages, bytes of constants (shared by the graphs of a part), and operators by
    kind."""

    name: str
    stages: tuple[str, ...]
    n_constant_bytes: int
    operators: dict[str, int]


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
    with open_weights(src, _stored_bits(src, chosen, options)) as weights:
        bits = options.bits or (4 if chosen.rounds else weights.bits)
        plan = _plan(weights, chosen, options, bits)
        with whole_directory(out) as folder:
            written, parts = _write_graphs(weights, plan, chosen, bits, folder, progress)
            bundle = _bundle(weights, plan, chosen, bits, folder, written)
            difference = None
            if against is not None:
                difference = compare_with_cpu(_session(chosen, folder, bundle), against)
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


def _session(target: Target, folder: Path, bundle: Bundle) -> GraphSession:
    """What was written, read again and run."""
    if target.check_runners is not None:
        runners = target.check_runners(folder, bundle)
    else:
        runners = runners_of(folder, bundle, settings=target.check_settings)
    return GraphSession(bundle.facts, bundle.graphs, runners)


def _stored_bits(src: Path, target: Target, options: NpuOptions) -> int | None:
    """What the graphs' constants are read with."""
    if options.bits is not None and options.bits not in target.bits:
        raise InvalidArgumentError(
            f"target '{target.name}' has no weights of {options.bits} bits (it has: "
            f"{', '.join(map(str, target.bits))})",
            code="invalid_argument",
        )
    if not target.rounds:
        return options.bits
    return None if is_edge(src) else 32


def _plan(weights: NpuWeights, target: Target, options: NpuOptions, bits: int) -> StepPlan:
    """Everything that can be refused without reading a weight is refused here."""
    sizes = stage_sizes(weights)
    limit = options.max_bytes or target.max_bytes
    spans = split_spans(sizes, len(weights.spec.layers), limit)
    check_ops(decoder_graph(weights, StepShape(1, 1)), target.kinds, target.name)
    return plan_steps(
        weights,
        options.shapes(),
        spans=spans,
        kv_dtype=target.kv_dtype,
        masked=target.masked(bits),
        stateful=target.stateful,
    )


def _write_graphs(
    weights: NpuWeights,
    plan: StepPlan,
    target: Target,
    bits: int,
    folder: Path,
    progress: Progress | None,
) -> tuple[dict[str, Written], list[PartReport]]:
    written: dict[str, Written] = {}
    parts: list[PartReport] = []
    with closing(_writer(target, folder, weights, plan, bits)) as writer:
        for n_done, (facts, span, shape) in enumerate(plan.graphs):
            if progress is not None:
                progress(facts.name, n_done, len(plan.graphs))
            graph = decoder_graph(weights, shape, span, target.kv_dtype)
            graph.name = facts.name
            written[facts.name] = writer.write(graph, facts.part)
            counts = dict(Counter(op.kind for op in graph.ops))
            stages = tuple(span.stages())
            parts.append(PartReport(facts.name, stages, graph.n_bytes, counts))
    return written, parts


def _writer(
    target: Target, folder: Path, weights: NpuWeights, plan: StepPlan, bits: int
) -> GraphWriter:
    try:
        return target.writer(folder, weights, plan, bits)
    except ImportError as error:
        raise UnsupportedError(
            f"target '{target.name}' needs {error.name}: pip install 'edgellm[{target.extra}]'",
            code="feature_unsupported",
        ) from error


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
    entry = {name: one.entry.relative_to(folder).as_posix() for name, one in written.items()}
    listed = hashed(folder, files)
    return Bundle(target.name, plan.facts, plan.graph_facts, entry, listed, target.settings(bits))


def _files_of(path: Path) -> list[Path]:
    """A file, or those in a folder."""
    if path.is_file():
        return [path]
    return sorted(one for one in path.rglob("*") if one.is_file())
