"""How operators are written: graphs in ONNX say what the CPU runtime says, for families that have
other activations, norms and positions; those for the HTP's half precision say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.decoder import StepShape, decoder_graph
from edgellm.converters.npu.split import plan_steps
from edgellm.converters.npu.weights import open_weights

from edgellm.npu.ort import OrtRunner
from edgellm.npu.session import GraphSession
from golden.families import FAMILIES, save_family
from npu.running import interpreted

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx (extra npu)")
pytest.importorskip("onnxruntime", reason="graphs are run by it (extra npu)")

from edgellm.converters.npu.qualcomm import HalfWriter  # noqa: E402

FIRST = ("gpt_neox_parallel", "phi3_")  # erf in its activation; two tables of positions
OTHERS = ("gpt2_", "gemma2_", "gpt_neox_sequential", "olmo2_", "granite_")
NAMES = [
    pytest.param(name, marks=() if name.startswith(FIRST) else pytest.mark.slow)
    for name in FAMILIES
    if name.startswith((*FIRST, *OTHERS))
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context", [16, 40])
def test_families_say_what_the_cpu_runtime_says(name: str, context: int, tmp_path: Path):
    """With LongRoPE in a context within the first training, which had 32, and in one beyond it."""
    source, _ = save_family(name, tmp_path / "source")
    edge = tmp_path / "model.edge"
    convert(source, edge, format="F16", act="f32")
    options = NpuOptions(rows=(1, 4), context=context)
    found = export_npu(edge, tmp_path / "npu", "npu:ort", options, against=edge).difference
    assert found is not None
    assert found.n_tokens == context
    assert found.relative <= 1e-3


def test_half_precision_is_written_without_the_sigmoid(tiny: Path, tmp_path: Path):
    """Which the HTP rounds to 8 bits."""
    ids = list(range(2, 30))
    with open_weights(tiny, 32) as weights:
        plan = plan_steps(weights, [StepShape(4, 32)], kv_dtype="f32")
        facts, span, shape = plan.graphs[0]
        graph = decoder_graph(weights, shape, span, "f32")
        graph.name = facts.name
        path = HalfWriter(tmp_path).write(0, [graph])[graph.name].entry
        wanted = interpreted(weights, plan).append(ids)
    kinds = {node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node}
    assert "Tanh" in kinds
    assert "Sigmoid" not in kinds
    session = GraphSession(plan.facts, [facts], {facts.name: OrtRunner(path, threads=1)})
    np.testing.assert_allclose(session.append(ids), wanted, atol=1e-4)
