"""Graphs for Qualcomm's HTP: integers by default, compiled offline to context binaries."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgellm.npu.qnn import compile_qnn

from .ir import Graph
from .onnx_lowering import OnnxWriter
from .qdq import QdqWriter
from .ranges import measure_ranges
from .split import StepPlan
from .weights import NpuWeights
from .written import Written


class QualcommWriter:
    """weight_bits: 4 or 8, beside activations of 16; or 16 for half precision. settings: as
    edgellm/npu/qnn.py takes them."""

    def __init__(
        self,
        folder: Path,
        weights: NpuWeights,
        plan: StepPlan,
        weight_bits: int,
        settings: Mapping[str, str],
    ) -> None:
        self._folder, self._settings = folder, settings
        self._scratch = tempfile.TemporaryDirectory()
        scratch = Path(self._scratch.name)
        if weight_bits == 16:
            self._graphs: OnnxWriter = OnnxWriter(scratch)
        else:
            self._graphs = QdqWriter(scratch, measure_ranges(weights, plan), weight_bits)

    def write(self, graph: Graph, part: int) -> Written:
        source = self._graphs.write(graph, part).entry
        out = self._folder / f"{graph.name}.onnx"
        return Written(out, compile_qnn(source, out, self._settings))

    def close(self) -> None:
        self._graphs.close()
        self._scratch.cleanup()
