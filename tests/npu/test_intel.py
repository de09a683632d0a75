"""OpenVINO: whole models on its CPU plugin, and partitioned by its NPU plugin; without an NPU a
clear refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.compare import cpu_logits, difference

from edgellm.errors import DeviceError, UnsupportedError
from edgellm.npu.model import NpuModel
from golden.tiny import SHARED_MODELS, shared_model
from npu.conftest import Keep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
openvino = pytest.importorskip("openvino", reason="NOT TESTED: OpenVINO; pip install openvino")


@pytest.mark.parametrize("name", SHARED_MODELS)
@pytest.mark.parametrize("format", ["F16", "L4_32"])
def test_whole_models_on_the_cpu_plugin(name: str, format: str, tmp_path: Path, measured: Keep):
    edge, out = tmp_path / "model.edge", tmp_path / "npu"
    convert(shared_model(name), edge, format=format, act="f32")
    report = export_npu(edge, out, "npu:intel", NpuOptions(rows=(1, 16), context=64), against=edge)
    assert report.difference is not None
    measured(name, "npu:intel, OpenVINO's CPU plugin", format, report.difference)
    assert report.difference.relative <= 1e-3
    assert report.difference.top1 == 1
    partitioned = NpuModel(out, settings={"device": "NPU-ON-CPU"})
    ids = [1, *partitioned.stream([1], max_tokens=40, stop_ids=())]
    found = difference(partitioned.logits(ids), cpu_logits(edge, ids))
    measured(name, "npu:intel, its NPU plugin's parts on the CPU plugin", format, found)
    assert found.relative <= 3e-2
    assert found.kl_nats <= 1e-3


def test_what_is_not_there_is_said(tiny: Path, tmp_path: Path):
    out = tmp_path / "npu"
    export_npu(tiny, out, "npu:intel", NpuOptions(rows=(1,), context=32))
    if "NPU" not in openvino.Core().available_devices:
        with pytest.raises(DeviceError, match="device 'CPU' runs the same graph"):
            NpuModel(out)
    with pytest.raises(UnsupportedError, match="device 'GPU' is not known"):
        NpuModel(out, settings={"device": "GPU"})
