"""What stays on the host, and the providers of onnxruntime: the same logits, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu

import command_line
from edgellm.errors import DeviceError, FormatError, InvalidArgumentError, UnsupportedError
from edgellm.npu.bundle import DESCRIPTION, read_bundle
from edgellm.npu.model import NpuModel
from edgellm.npu.providers import (
    PROVIDERS,
    default_settings,
    device_settings,
    provider_options,
)
from edgellm.profiles import find_profile
from npu.running import session_of

pytest.importorskip("onnx", reason="graphs are written with onnx (extra npu)")
onnxruntime = pytest.importorskip("onnxruntime", reason="graphs are run by it (extra npu)")

IDS = list(range(2, 30))


@pytest.mark.parametrize(
    ("embed", "head", "placements"),
    [
        ("host", None, ["host", "npu"]),
        (None, "host", ["npu", "host"]),
        ("host", "host", ["host", "npu", "host"]),
    ],
)
def test_what_is_on_the_host_changes_nothing(
    tiny: Path, tmp_path: Path, embed: str | None, head: str | None, placements: list[str]
):
    options = NpuOptions(rows=(1, 4), context=32, embed=embed, head=head)
    report = export_npu(tiny, tmp_path / "npu", "npu:ort", options)
    bundle = read_bundle(tmp_path / "npu")
    assert [one.placement for one in bundle.graphs if one.n_rows == 1] == placements
    on_host = [one.stages for one in report.parts if one.placement == "host"]
    assert all(stages in (("embed",), ("head",)) for stages in on_host)
    wanted = session_of(tiny, [(4, 32)], bits=4, kv_dtype="f16").append(IDS)
    got = NpuModel(tmp_path / "npu", threads=1).logits(IDS)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_a_place_that_there_is_not_is_refused(tiny: Path, tmp_path: Path):
    with pytest.raises(InvalidArgumentError, match="head must be one of npu, host"):
        NpuOptions(head="moon")
    export_npu(tiny, tmp_path / "npu", "npu:ort", NpuOptions(rows=(1,), context=8))
    root = json.loads((tmp_path / "npu" / DESCRIPTION).read_text())
    del root["graphs"][0]["placement"]  # as bundles of earlier versions
    (tmp_path / "npu" / DESCRIPTION).write_text(json.dumps(root))
    assert read_bundle(tmp_path / "npu").graphs[0].placement == "npu"
    root["graphs"][0]["placement"] = "moon"
    (tmp_path / "npu" / DESCRIPTION).write_text(json.dumps(root))
    with pytest.raises(FormatError, match="'placement'"):
        read_bundle(tmp_path / "npu")


def test_the_verb_places_the_head(tiny: Path, tmp_path: Path):
    edge = tmp_path / "tiny.edge"
    convert(tiny, edge, format="L4_32", act="f32")
    choices = ["--target", "npu:ort", "--npu-context", 16, "--npu-head", "host"]
    choices += ["--npu-rows", 1, "--npu-rows", 8, "--npu-buckets", 8]
    ran = command_line.edgellm("convert", edge, tmp_path / "npu", *choices, cwd=tmp_path)
    assert "head to head on the host" in ran.stdout
    assert "operators are for ort" in ran.stdout
    shapes = {(one.n_rows, one.n_past) for one in read_bundle(tmp_path / "npu").graphs}
    assert shapes == {(1, 8), (8, 8), (1, 16), (8, 16)}


@pytest.mark.parametrize("name", ["coreml", "vitisai"])
def test_a_provider_that_is_not_there_is_refused(name: str, tiny: Path, tmp_path: Path):
    edge, out = tmp_path / "tiny.edge", tmp_path / "npu"
    convert(tiny, edge, format="F16", act="f32")
    options = NpuOptions(rows=(1, 4), context=64)
    report = export_npu(edge, out, f"npu:ort-{name}", options, against=edge)
    assert report.difference is not None
    assert report.difference.relative < 1e-3
    bundle = read_bundle(out)
    assert bundle.settings == default_settings(name)
    kinds = {node for part in report.parts for node in part.operators}
    assert "linear" in kinds
    if PROVIDERS[name].name not in onnxruntime.get_available_providers():
        with pytest.raises(DeviceError, match="this onnxruntime has no"):
            NpuModel(out)
    assert NpuModel(out, settings={"provider": "cpu"}, threads=1).logits([2, 3]).shape[0] == 2
    with pytest.raises(UnsupportedError, match="'abacus' is not known"):
        NpuModel(out, settings={"provider": "abacus"})


def test_sharing_is_no_choice_where_it_is_always_so(tiny: Path, tmp_path: Path):
    with pytest.raises(InvalidArgumentError, match="always shares"):
        export_npu(tiny, tmp_path / "npu", "npu:ort", NpuOptions(share=True))


def test_weights_of_4_bits_are_for_others(tiny: Path, tmp_path: Path):
    edge = tmp_path / "tiny.edge"
    convert(tiny, edge, format="L4_32", act="f32")
    with pytest.raises(UnsupportedError, match="has no weights of 4 bits, which the file holds"):
        export_npu(edge, tmp_path / "npu", "npu:ort-coreml")
    with pytest.raises(InvalidArgumentError, match="has no weights of 4 bits"):
        export_npu(tiny, tmp_path / "npu", "npu:ort-coreml", NpuOptions(bits=4))


def test_options_are_those_of_the_device(tmp_path: Path):
    phone, laptop = (device_settings(find_profile(name)) for name in ("iphone-16-pro", "mac-m4"))
    assert phone["provider"] == "coreml"
    assert phone["provider.MLComputeUnits"] == "CPUAndNeuralEngine"
    assert "provider.SpecializationStrategy" not in phone
    assert laptop["provider.SpecializationStrategy"] == "FastPrediction"
    told = provider_options(tmp_path / "a.onnx", laptop)
    assert told["ModelFormat"] == "MLProgram"
    assert told["ModelCacheDirectory"] == str(tmp_path / "model-cache")
    amd = device_settings(find_profile("ryzen-ai-9-hx-370"))
    assert provider_options(tmp_path / "a.onnx", amd)["cache_dir"] == str(tmp_path / "model-cache")
    with pytest.raises(UnsupportedError, match="'raspberry-pi-5' has no NPU behind"):
        device_settings(find_profile("raspberry-pi-5"))
