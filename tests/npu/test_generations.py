"""Graphs for several generations of an NPU in one bundle: a device opens those of its own, and
needs no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.targets import HTP_GENERATIONS

import edgellm
from edgellm.errors import FormatError, IntegrityError, InvalidArgumentError
from edgellm.npu import DESCRIPTION
from edgellm.npu.bundle import read_bundle, read_description
from edgellm.npu.driver import placements
from edgellm.npu.model import NpuModel

pytest.importorskip("onnx", reason="graphs are written with onnx (extra npu)")
pytest.importorskip("onnxruntime", reason="graphs are run by it (extra npu)")

IDS = list(range(2, 20))


def described(folder: Path, **changes: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and beside it graphs of no generation."""
    out = tmp_path_factory.mktemp("generations") / "tiny.edge"
    convert(tiny, out, format="L4_32", act="f32")
    export_npu(out, out.with_suffix(".npu-ort"), "npu:ort", NpuOptions(rows=(1, 4), context=32))
    return out


@pytest.fixture
def edge(made: Path, tmp_path: Path) -> Path:
    """The same for generations 1 and 2, whose files are alike."""
    out, plain = tmp_path / "tiny.edge", tmp_path / "tiny.npu-ort"
    shutil.copy(made, out)
    shutil.copytree(made.with_suffix(".npu-ort"), plain)
    files = [one for one in plain.iterdir() if one.suffix in (".onnx", ".data")]
    listed = {one["name"]: one for one in json.loads((plain / DESCRIPTION).read_text())["files"]}
    for generation in ("v1", "v2"):
        (plain / generation).mkdir()
        for file in files:
            shutil.copy(file, plain / generation)
            name = f"{generation}/{file.name}"
            listed[name] = {**listed[file.name], "name": name}
    for file in files:
        file.unlink()
        del listed[file.name]
    described(plain, files=list(listed.values()), generations=["1", "2"])
    return out


def test_one_generation_is_opened(edge: Path):
    folder = edge.with_suffix(".npu-ort")
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        wanted = cpu.generate(IDS, max_tokens=10, stop_ids=()).token_ids
    shutil.rmtree(folder / "v1")
    with edgellm.load(edge, backend="npu:ort-v2", threads=1) as model:
        assert model.generate(IDS, max_tokens=10, stop_ids=()).token_ids == wanted
    model = NpuModel(folder, threads=1, settings={"htp_arch": "2"})
    assert list(model.stream(IDS, max_tokens=10, stop_ids=())) == list(wanted)
    with pytest.raises(FormatError, match=r"v1/.*cannot be read"):
        NpuModel(folder, settings={"htp_arch": "1"})
    with pytest.raises(FormatError, match="v1/"):
        edgellm.load(edge, backend="npu:ort-v1")
    assert "for each of v1, v2" in placements(edge)[0].text()


@pytest.mark.parametrize("backend", ["npu", "npu:ort", "npu:ort-v3"])
def test_one_has_to_be_named(edge: Path, backend: str):
    with pytest.raises(InvalidArgumentError, match="npu:ort-v1"):
        edgellm.load(edge, backend=backend)
    with pytest.raises(InvalidArgumentError, match="htp_arch"):
        NpuModel(edge.with_suffix(".npu-ort"))


def test_what_is_no_generation_is_refused(edge: Path):
    folder = edge.with_suffix(".npu-ort")
    wrong = (["../1"], ["1", "1"], [1], "12", [f"{n}" for n in range(17)], [""])
    for generations in wrong:
        described(folder, generations=generations)
        with pytest.raises(FormatError, match="generations"):
            read_description(folder)
    described(folder, generations=["1", "3"])
    with pytest.raises(FormatError, match="in no file that is listed"):
        read_bundle(folder, "1")
    described(folder, generations=[])
    with pytest.raises(FormatError, match="in no file that is listed"):
        edgellm.load(edge, backend="npu:ort")


def test_a_generation_of_graphs_that_have_none_is_not_there(made: Path):
    with pytest.raises(FormatError, match="no graphs for 'ort-v1'"):
        edgellm.load(made, backend="npu:ort-v1")


@pytest.mark.slow
def test_the_htps_generations_in_one_bundle(tiny: Path, tmp_path: Path):
    pytest.importorskip(
        "onnxruntime_qnn", reason="NOT TESTED: Qualcomm's HTP; pip install onnxruntime-qnn"
    )
    edge = tmp_path / "tiny.edge"
    convert(tiny, edge, format="F16", act="f32")
    options = NpuOptions(rows=(1, 4), context=32, bits=8)
    folder = edge.with_suffix(".npu-qualcomm")
    report = export_npu(tiny, folder, "npu:qualcomm", options, against=edge)
    assert report.difference is not None
    assert report.difference.kl_nats <= 0.005
    assert read_description(folder).generations == HTP_GENERATIONS
    for arch in HTP_GENERATIONS:
        assert len(list((folder / f"v{arch}").glob("*_qnn.bin"))) == 2
        alone = tmp_path / f"alone.npu-qualcomm-v{arch}"
        export_npu(tiny, alone, f"npu:qualcomm-v{arch}", options)
        wanted = NpuModel(alone).logits(IDS)
        assert (NpuModel(folder, settings={"htp_arch": arch}).logits(IDS) == wanted).all()
    binary = next((folder / "v75").glob("*_qnn.bin"))
    shutil.rmtree(folder / "v81")
    shutil.copy(edge, tmp_path / "alone.edge")
    texts = []
    for path in (edge, tmp_path / "alone.edge"):
        with edgellm.load(path, backend="npu:qualcomm-v75") as model:
            texts.append(model.generate(IDS, max_tokens=6, stop_ids=()).token_ids)
    assert texts[0] == texts[1]
    binary.write_bytes(binary.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=binary.name):
        edgellm.load(edge, backend="npu:qualcomm-v75")
