"""Bundles: written whole, read back, refused when a byte changed, run by onnxruntime as the CPU
runtime runs the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.compare import cpu_logits, difference
from edgellm.converters.npu.split import stage_sizes
from edgellm.converters.npu.weights import open_weights

import command_line
import edgellm
from edgellm.cli.npu import check_choices, graphs_text
from edgellm.errors import (
    ContextOverflowError,
    FormatError,
    IntegrityError,
    InvalidArgumentError,
    UnsupportedError,
)
from edgellm.npu.bundle import DESCRIPTION, read_bundle
from edgellm.npu.model import NpuModel
from golden.tiny import SHARED_MODELS, shared_model
from npu.conftest import Keep

pytest.importorskip("onnx", reason="graphs are written with onnx (extra npu)")
pytest.importorskip("onnxruntime", reason="graphs are run by it (extra npu)")

SMALL = NpuOptions(rows=(1, 4, 16), context=64, buckets=(16,))


@pytest.fixture(scope="module")
def edge(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("edge") / "tiny.edge"
    convert(tiny, out, format="L4_32", act="f32")
    return out


@pytest.fixture(scope="module")
def bundle(edge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "tiny.npu"
    report = export_npu(edge, out, "npu:ort", SMALL, against=edge)
    assert report.difference is not None
    assert report.difference.relative < 1e-3
    assert report.difference.top1 == 1
    assert len(report.parts) == 6
    return out


def test_a_bundle_says_the_same_as_the_cpu_runtime(bundle: Path, edge: Path):
    model = NpuModel(bundle, threads=1)
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        prompt = cpu.tokenize("Once")
        assert model.tokenize("Once") == prompt
        wanted = list(cpu.generate(prompt, max_tokens=30, stop_ids=()).token_ids)
    for speculate in (False, True):
        got = list(model.stream("Once", max_tokens=30, stop_ids=(), speculate=speculate))
        assert got == wanted
    assert model.session.reused_tokens == len(prompt) - 1


def test_a_seed_is_a_text_with_or_without_guesses(bundle: Path):
    model = NpuModel(bundle, threads=1)
    settings = {"max_tokens": 24, "temperature": 0.7, "top_k": 8, "seed": 5, "stop_ids": ()}
    plain = list(model.stream([2, 3, 2, 3], speculate=False, **settings))
    assert list(model.stream([2, 3, 2, 3], speculate=True, **settings)) == plain
    others = {tuple(model.stream([2, 3], **{**settings, "seed": seed})) for seed in range(4)}
    assert len(others) > 1
    with pytest.raises(InvalidArgumentError):
        model.stream([2], max_tokens=1, temperature=-1.0)


def test_a_prompt_that_is_too_long_is_an_error(bundle: Path):
    model = NpuModel(bundle, threads=1)
    with pytest.raises(ContextOverflowError, match="made for 64"):
        next(model.stream(list(range(2, 70)), max_tokens=1))


def test_a_changed_file_is_refused(bundle: Path, tmp_path: Path):
    copy = copied(bundle, tmp_path)
    victim = next(copy.glob("*.data"))
    data = bytearray(victim.read_bytes())
    data[0] ^= 1
    victim.write_bytes(data)
    with pytest.raises(IntegrityError, match=victim.name):
        read_bundle(copy)
    victim.unlink()
    with pytest.raises(FormatError, match=victim.name):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2),
        (["target"], 3),
        (["graphs"], []),
        (["graphs", 0, "entry"], "../../etc/passwd"),
        (["graphs", 0, "n_rows"], -1),
        (["graphs", 0, "part"], 1),
        (["graphs", 0, "entry"], "bundle.json"),
        (["graphs", 0, "inputs", 0], "past_k.99"),
        (["files", 0, "name"], "/etc/passwd"),
        (["model", "layers"], {}),
        (["model", "kv_dtype"], "f8"),
        (["model", "rotations", "full", "inv_freq"], ["x"]),
    ],
)
def test_a_broken_description_is_refused(bundle: Path, tmp_path: Path, path: list, value: object):
    copy = copied(bundle, tmp_path)
    root = at = json.loads((copy / DESCRIPTION).read_text())
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (copy / DESCRIPTION).write_text(json.dumps(root))
    with pytest.raises(FormatError):
        NpuModel(copy)


def test_a_target_that_nothing_runs_is_named(bundle: Path, tmp_path: Path):
    copy = copied(bundle, tmp_path)
    root = json.loads((copy / DESCRIPTION).read_text())
    root["target"] = "abacus"
    (copy / DESCRIPTION).write_text(json.dumps(root))
    with pytest.raises(UnsupportedError, match="'abacus'"):
        NpuModel(copy)


def test_what_is_wrong_with_a_request_is_said_and_leaves_nothing(tiny: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(InvalidArgumentError, match="npu:ort"):
        export_npu(tiny, out, "npu:abacus")
    with pytest.raises(InvalidArgumentError, match="rows"):
        NpuOptions(rows=(4,))
    with pytest.raises(InvalidArgumentError, match="context"):
        NpuOptions(context=0)
    with pytest.raises(UnsupportedError, match="by itself"):
        export_npu(tiny, out, "npu:ort", NpuOptions(max_bytes=1000))
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with pytest.raises(FormatError, match="exists"):
        export_npu(tiny, out, "npu:ort")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "format"),
    [
        pytest.param(name, format, marks=() if name == "stories260K" else pytest.mark.slow)
        for name in SHARED_MODELS
        for format in ("F16", "L4_32")
    ],
)
def test_whole_models_say_what_the_cpu_runtime_says(
    name: str, format: str, tmp_path: Path, measured: Keep
):
    source, edge = shared_model(name), tmp_path / "model.edge"
    convert(source, edge, format=format, act="f32")
    export_npu(edge, tmp_path / "npu", "npu:ort", NpuOptions(rows=(1, 4, 64), context=128))
    model = NpuModel(tmp_path / "npu", threads=1)
    prompt = [1, 5, 9]
    with edgellm.load(edge, kv="F16", threads=1) as cpu:
        wanted = list(cpu.generate(prompt, max_tokens=60, stop_ids=()).token_ids)
    assert list(model.stream(prompt, max_tokens=60, stop_ids=())) == wanted
    ids = [*prompt, *wanted]
    found = difference(model.logits(ids), cpu_logits(edge, ids))
    measured(name, "npu:ort, onnxruntime's CPU provider", format, found)
    assert found.relative <= 1e-3


def copied(bundle: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_differences_are_counted():
    wanted = np.array([[0.0, 2.0], [2.0, 0.0]], dtype=np.float32)
    found = difference(wanted + np.array([[0, 0], [0, 4]], dtype=np.float32), wanted)
    assert found.n_tokens == 2
    assert found.relative == 2
    assert found.top1 == 0.5
    assert found.kl_nats > 0.5


def test_the_verb_writes_file_and_graphs(tiny: Path, tmp_path: Path):
    out = tmp_path / "tiny.edge"
    choices = ["--format", "L4_32", "--target", "npu:ort", "--npu-context", 64]
    ran = command_line.edgellm("convert", tiny, out, *choices, "--json", cwd=tmp_path)
    assert command_line.data_of(ran, "convert")["npu"]["difference"]["n_tokens"] == 64
    assert NpuModel(tmp_path / "tiny.npu-ort", threads=1).session.capacity == 64
    assert "same top token" in graphs_text(export_npu(out, tmp_path / "x", "npu:ort", against=out))
    with pytest.raises(InvalidArgumentError, match="--npu-bits: only with --target"):
        check_choices(None, {"npu_bits": 4})


def test_parts_run_one_after_the_other(tiny: Path, bundle: Path, tmp_path: Path):
    with open_weights(tiny, 4) as weights:
        limit = max(size.n_bytes for size in stage_sizes(weights))
    options = NpuOptions(rows=(1, 4), context=32, max_bytes=limit)
    report = export_npu(tiny, tmp_path / "npu", "npu:ort", options)
    assert len(report.parts) > 4
    ids = list(range(2, 25))
    parts, whole = NpuModel(tmp_path / "npu", threads=1), NpuModel(bundle, threads=1)
    np.testing.assert_allclose(parts.logits(ids), whole.logits(ids), atol=1e-4)
    assert len(list((tmp_path / "npu").glob("part*.data"))) == len(report.parts) // 2
