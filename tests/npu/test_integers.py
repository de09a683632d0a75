"""Integer graphs: what they hold is what was rounded, zero points are always there, and they say
what the float graph says; run by onnxruntime's CPU provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.npu.compare import Difference, difference
from edgellm.converters.npu.decoder import StepShape, decoder_graph
from edgellm.converters.npu.split import plan_steps
from edgellm.converters.npu.weights import NpuWeights, open_weights

from edgellm.errors import UnsupportedError
from edgellm.npu.ort import OrtRunner
from edgellm.npu.session import GraphSession
from npu.running import interpreted

onnx = pytest.importorskip("onnx", reason="graphs are written with onnx (extra npu)")
pytest.importorskip("onnxruntime", reason="graphs are run by it (extra npu)")

from edgellm.converters.npu.qdq import QdqWriter, round_weights  # noqa: E402
from edgellm.converters.npu.ranges import measure_ranges  # noqa: E402

IDS = list(range(2, 34))


def written(weights: NpuWeights, folder: Path, bits: int) -> tuple[Path, GraphSession]:
    """An integer graph of 16 tokens, and a session that runs it as it is written."""
    plan = plan_steps(weights, [StepShape(16, 32)], kv_dtype="f32", masked=-64.0)
    facts, span, shape = plan.graphs[0]
    graph = decoder_graph(weights, shape, span, "f32")
    graph.name = facts.name
    writer = QdqWriter(folder, measure_ranges(weights, plan, IDS), bits)
    path = writer.write(0, [graph])[graph.name].entry
    runner = OrtRunner(path, threads=1, entries={"session.disable_quant_qdq": "1"})
    return path, GraphSession(plan.facts, plan.graph_facts, {facts.name: runner})


def from_float(weights: NpuWeights, session: GraphSession) -> Difference:
    plan = plan_steps(weights, [StepShape(16, 32)], kv_dtype="f32")
    return difference(session.append(IDS), interpreted(weights, plan).append(IDS))


def test_activations_of_16_bits_cost_little(tiny: Path, tmp_path: Path):
    with open_weights(tiny, 32) as weights:
        _, session = written(weights, tmp_path, 8)
        found = from_float(weights, session)
    assert found.relative < 0.05
    assert found.kl_nats < 1e-3


def test_weights_of_4_bits_have_zero_points(tiny: Path, tmp_path: Path):
    """Qualcomm's compiler takes them for 8 bits otherwise, and says nothing."""
    with open_weights(tiny, 32) as weights:
        path, session = written(weights, tmp_path, 4)
        assert from_float(weights, session).kl_nats < 0.2
    model = onnx.load(str(path), load_external_data=False)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nibbles = {name for name, kind in kinds.items() if kind == onnx.TensorProto.INT4}
    readers = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in nibbles
    ]
    assert len(readers) == 2 * 5  # q, o, gate, up, down; keys, values and the head have 8 bits
    assert all(len(node.input) == 3 and node.input[2] in nibbles for node in readers)


def test_weights_of_the_grid_stay_as_they_are(tiny: Path, tmp_path: Path):
    out = tmp_path / "tiny.edge"
    convert(tiny, out, format="L4_32", act="f32")
    with (
        open_weights(out) as weights,
        pytest.raises(UnsupportedError, match=r"zero points or an odd width.*source"),
    ):
        written(weights, tmp_path, 4)


def test_rounding_is_symmetric_and_of_least_squares():
    rng = np.random.default_rng(7)
    exact = rng.integers(-7, 8, (4, 64)).astype(np.float32)
    exact[:, ::32] = 7
    steps = np.repeat(rng.random((4, 2), dtype=np.float32) + 0.5, 32, axis=1)
    scales, codes = round_weights(exact * steps, 4, 32)
    np.testing.assert_array_equal(codes, exact)
    np.testing.assert_allclose(scales, steps[:, ::32], rtol=1e-6)
    values = rng.standard_normal((16, 64)).astype(np.float32)
    scales, codes = round_weights(values, 4, 32)
    widest = np.abs(values.reshape(16, 2, 32)).max(-1) / 7
    plain = np.rint(values.reshape(16, 2, 32) / widest[..., None]) * widest[..., None]
    searched = codes.reshape(16, 2, 32) * scales[..., None]
    wanted = values.reshape(16, 2, 32)
    assert np.square(searched - wanted).sum() < np.square(plain - wanted).sum()
    assert not round_weights(np.zeros((2, 32), np.float32), 4, 32)[1].any()
