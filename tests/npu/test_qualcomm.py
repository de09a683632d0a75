"""Qualcomm's compiler and simulator (onnxruntime-qnn, Linux x86-64): whole models, all on the HTP,
context binaries of four generations, and the two traps."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.targets import HTP_GENERATIONS

from edgellm.errors import DeviceError, UnsupportedError
from edgellm.npu.executors import runners_of
from edgellm.npu.model import NpuModel
from golden.families import save_family
from golden.tiny import SHARED_MODELS, shared_model
from npu.conftest import Keep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
qnn = pytest.importorskip(
    "onnxruntime_qnn", reason="NOT TESTED: Qualcomm's HTP; pip install onnxruntime-qnn"
)

ONE_GRAPH = NpuOptions(rows=(1,), context=64)
SETTINGS = {"htp_arch": "75", "half": "0"}
KL_NATS = {4: 0.05, 8: 0.005, 16: 0.001}


@pytest.mark.parametrize("name", SHARED_MODELS)
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_whole_models_on_the_simulator(name: str, bits: int, tmp_path: Path, measured: Keep):
    source, edge = shared_model(name), tmp_path / "model.edge"
    convert(source, edge, format="F16", act="f32")
    options = NpuOptions(rows=(1, 16), context=64, bits=bits)
    report = export_npu(source, tmp_path / "npu", "npu:qualcomm-v79", options, against=edge)
    found = report.difference
    assert found is not None
    weights = "half precision" if bits == 16 else f"a16w{bits}"
    measured(name, "npu:qualcomm-v79, the HTP simulator", weights, found)
    assert found.n_tokens == 64
    if bits == 16:
        assert found.norm <= 5e-3
        assert found.relative <= 5e-3
        assert found.top1 >= 0.98
    assert found.kl_nats <= KL_NATS[bits]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["gpt_neox_parallel", "gpt2_unscaled_relu", "gemma2_caps_windows"])
def test_every_activation_is_on_the_htp(name: str, bits: int, tmp_path: Path):
    source, _ = save_family(name, tmp_path / "source")
    edge = tmp_path / "model.edge"
    convert(source, edge, format="F16", act="f32")
    options = NpuOptions(rows=(1, 4), context=32, bits=bits)
    report = export_npu(source, tmp_path / "npu", "npu:qualcomm-v79", options, against=edge)
    assert report.difference is not None
    assert report.difference.kl_nats <= KL_NATS[bits]


@pytest.mark.parametrize("arch", HTP_GENERATIONS)
def test_context_binaries_of_every_generation_load_again(arch: str, tiny: Path, tmp_path: Path):
    out = tmp_path / "npu"
    report = export_npu(tiny, out, f"npu:qualcomm-v{arch}", ONE_GRAPH)
    assert report.difference is None
    assert [path.suffix for path in out.glob("*_qnn.bin")] == [".bin"]
    model = NpuModel(out)
    ids = list(range(2, 20))
    first = model.logits(ids)
    assert (NpuModel(out).logits(ids) == first).all()
    with pytest.raises(UnsupportedError, match="generation '99'"):
        runners_of(
            out, type(model.bundle)(**{**vars(model.bundle), "settings": {"htp_arch": "99"}})
        )


def test_shapes_that_share_their_weights_say_the_same(tiny: Path, tmp_path: Path):
    """The simulator runs what compiled a shared binary, and refuses to load it."""
    edge, found, sizes = tmp_path / "tiny.edge", [], []
    convert(tiny, edge, format="F16")
    for share in (False, True):
        out = tmp_path / f"npu{share}"
        options = NpuOptions(rows=(1, 16), context=64, bits=8, share=share)
        report = export_npu(tiny, out, "npu:qualcomm-v79", options, against=edge)
        found.append(report.difference)
        sizes.append([path.stat().st_size for path in out.glob("*_qnn.bin")])
    assert found[0] == found[1]
    assert found[0] is not None
    assert [len(one) for one in sizes] == [2, 1]
    assert sizes[1][0] < 0.9 * sum(sizes[0])
    with pytest.raises(DeviceError, match="NOT_SUPPORTED"):
        NpuModel(out)


def test_weights_with_one_scale_an_output_are_right(tiny: Path, tmp_path: Path):
    """Widths of 40 and 56 have no groups of 32: without zero points logits would be garbage."""
    edge = tmp_path / "tiny.edge"
    convert(tiny, edge, format="F16")
    options = NpuOptions(rows=(1,), context=32, bits=4)
    report = export_npu(tiny, tmp_path / "npu", "npu:qualcomm-v75", options, against=edge)
    assert report.difference is not None
    assert report.difference.kl_nats < 0.2


def test_nothing_runs_on_the_cpu_instead(tiny: Path, tmp_path: Path):
    """MatMulNBits is no operator of the HTP: the provider must not give it to the CPU's."""
    from edgellm.npu.qnn import open_qnn

    export_npu(tiny, tmp_path / "npu", "npu:ort", ONE_GRAPH)
    graph = next((tmp_path / "npu").glob("*.onnx"))
    with pytest.raises(DeviceError, match="does not take the graph"):
        open_qnn(graph, SETTINGS)
