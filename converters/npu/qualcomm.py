"""Graphs for Qualcomm's HTP: integers by default, compiled offline to context binaries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgellm.npu.bundle import GENERATION
from edgellm.npu.qnn import Compiled, compile_qnn

from ..export.onnx_graph import Initializers
from .ir import Graph, Op
from .onnx_lowering import OnnxLowering, OnnxWriter
from .qdq import QdqWriter
from .ranges import measure_ranges
from .split import StepPlan
from .weights import NpuWeights
from .written import Written

HALF = 16


class QualcommWriter:
    """folders: of the graphs, by the generation of the HTP. weight_bits: 4 or 8, beside activations
    of 16; or 16 for half precision. settings: as edgellm/npu/qnn.py takes them. share: graphs of a
    part are one context binary."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        weights: NpuWeights,
        plan: StepPlan,
        weight_bits: int,
        settings: Mapping[str, str],
        *,
        share: bool,
    ) -> None:
        self._folders, self._bits, self._settings = folders, weight_bits, settings
        self._share = share
        self._ranges = {} if weight_bits == HALF else measure_ranges(weights, plan)

    def write(self, part: int, graphs: Iterable[Graph]) -> Mapping[str, Written]:
        with tempfile.TemporaryDirectory() as scratch:
            sources = self._sources(Path(scratch)).write(part, graphs)
            entries = {name: one.entry for name, one in sources.items()}
            made = [self._compile(entries, arch) for arch in self._folders]
        last = list(self._folders.values())[-1]
        return {
            name: Written(
                one.entry,
                tuple(path for each in made for path in each[name].files),
                one.runner,
                last,
            )
            for name, one in made[-1].items()
        }

    def _compile(self, sources: Mapping[str, Path], arch: str) -> dict[str, Compiled]:
        folder = self._folders[arch]
        folder.mkdir(exist_ok=True)
        return compile_qnn(sources, folder, {**self._settings, GENERATION: arch}, share=self._share)

    def _sources(self, scratch: Path) -> OnnxWriter:
        if self._bits == HALF:
            return HalfWriter(scratch)
        return QdqWriter(scratch, self._ranges, self._bits)


class HalfWriter(OnnxWriter):
    """Graphs in floats, for the HTP's half precision."""

    def lowering(self, graph: Graph, constants: Initializers) -> OnnxLowering:
        return HalfLowering(graph, constants)


class HalfLowering(OnnxLowering):
    """The HTP's sigmoid behind a product keeps 8 bits of its 11, its tanh all of them."""

    def silu(self, op: Op, x: str) -> None:
        half = self.node("Mul", [x, self.number(0.5)])
        tanh = self.node("Tanh", [half])
        self.node("Mul", [half, self.node("Add", [tanh, self.number(1.0)])], op.output)
