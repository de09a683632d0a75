"""W8A8 graphs: onnxruntime's logits are those of torch on the same integers, in int8 products."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from edgellm.converters import CalibrationTokens
from edgellm.converters.export import W8A8Options, export, w8a8
from edgellm.converters.export.w8a8 import HELD_OUT_WINDOWS, onnxruntime_nmse
from edgellm.converters.export.whole import whole_files
from edgellm.converters.reference import Reference

from command_line import data_of, edgellm, failure_of
from edgellm.errors import EdgeError, FormatError, InvalidArgumentError, NumericError
from edgellm.errors import UnsupportedError as Unsupported
from golden.tiny import CASE_NAMES, case_named, named_weights, shared_model, tiny_checkpoint

onnx = pytest.importorskip("onnx", reason="the graph is built with onnx (extra npu)")
onnxruntime = pytest.importorskip("onnxruntime", reason="the graph is run by it (extra npu)")

KIND = "w8a8-onnx"
# A rounding that float noise decides otherwise changes a code by one and, through the layers, many
# logits a little: squares over all logits say how far models are apart, largest differences do not.
MAX_NMSE = 1e-2
modes = pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])


def nmse(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    error = np.square(got - wanted, dtype=np.float64).sum()
    return float(error / np.square(wanted, dtype=np.float64).sum())


def random_tokens(n_vocab: int, n_windows: int = 4, n_tokens: int = 24) -> CalibrationTokens:
    rng = np.random.default_rng(11)
    shape = (n_windows + HELD_OUT_WINDOWS, n_tokens)
    return CalibrationTokens(rng.integers(0, n_vocab, shape).astype(np.int32))


def run(path: Path, ids: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Logits [batch, n_tokens, n_vocab] for ids [batch, n_tokens]."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits: npt.NDArray[np.float32] = session.run(["logits"], {"input_ids": ids})[0]
    return logits


def constants(path: Path) -> dict[str, npt.NDArray[Any]]:
    graph = onnx.load(path).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


class Oracle(Reference):
    """The model that a graph's constants stand for, written from the paper, not from the exporter:
    integers times integers in float64, everything else in float32."""

    def __init__(self, path: Path, like: Reference) -> None:
        values = constants(path)
        norms = {n: torch.from_numpy(v.copy()) for n, v in values.items() if n.endswith("_norm")}
        super().__init__(like.spec, {**like.weights, **norms})
        self._static = any(name.endswith("input_scale") for name in values)
        self._parts: dict[str, tuple[torch.Tensor, torch.Tensor, float]] = {}
        for name, codes in values.items():
            prefix, _, joined = name.rpartition(".")
            if codes.dtype != np.int8 or codes.ndim != 2:
                continue
            roles = joined.split("+")
            scales = values[name + ".scale"]
            input_scale = float(values.get(f"{prefix}.{roles[0]}.input_scale", np.float32(0)))
            sizes = [like.weights[f"{prefix}.{role}"].shape[0] for role in roles]
            begin = 0
            for role, size in zip(roles, sizes, strict=True):
                rows = slice(begin, begin + size)
                part = torch.from_numpy(codes.T[rows].astype(np.float64))
                scale = torch.from_numpy(scales[rows].copy())
                self._parts[f"{prefix}.{role}"] = (part, scale, input_scale)
                begin += size

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        codes, scales, input_scale = self._parts[name]
        step = torch.tensor(input_scale) if self._static else x.abs().amax(-1, True) / 127
        integers = (x / step).round().clamp(-128, 127).double()
        return ((integers @ codes.T) * step.double() * scales.double()).float()


@modes
@pytest.mark.parametrize("name", CASE_NAMES)
def test_onnxruntime_gives_what_torch_gives_on_the_same_integers(
    name: str, dynamic: bool, tmp_path: Path
) -> None:
    case = case_named(name)
    source = tiny_checkpoint(tmp_path, case)
    out = tmp_path / "model.onnx"
    tokens = random_tokens(case["vocab_size"])
    report = export(source, out, KIND, calibration=tokens, w8a8=W8A8Options(dynamic=dynamic))
    assert report.quality is not None
    assert report.quality.onnxruntime_nmse is not None
    assert report.quality.onnxruntime_nmse < MAX_NMSE
    assert report.n_bytes == out.stat().st_size
    ids = np.random.default_rng(5).integers(0, case["vocab_size"], (2, case["n_tokens"]))
    got = run(out, ids)
    original = Reference.from_checkpoint(source)
    oracle = Oracle(out, original)
    for row, sequence in enumerate(ids.tolist()):
        wanted = oracle.logits(sequence).numpy()
        full = original.logits(sequence).numpy()
        assert nmse(got[row], wanted) < min(MAX_NMSE, nmse(wanted, full))
        assert 1e-7 < nmse(wanted, full) < 0.05
        np.testing.assert_allclose(run(out, ids[row : row + 1])[0], got[row], atol=1e-4)
    short = run(out, ids[:1, :9])[0]
    assert nmse(short, oracle.logits(ids[0, :9].tolist()).numpy()) < MAX_NMSE


@modes
def test_every_matrix_is_multiplied_in_int8(dynamic: bool, tmp_path: Path) -> None:
    """What onnxruntime makes of the graph: one integer product for matrices that share an input."""
    case = case_named(CASE_NAMES[1])
    out = tmp_path / "model.onnx"
    options = W8A8Options(dynamic=dynamic)
    source = tiny_checkpoint(tmp_path, case)
    export(source, out, KIND, calibration=random_tokens(case["vocab_size"]), w8a8=options)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(out), settings, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] == 4 * case["num_hidden_layers"]
    assert kinds["DequantizeLinear"] == 0


@pytest.mark.parametrize(
    "model", ["babyllama-tok105", pytest.param("seed6m", marks=pytest.mark.slow)]
)
def test_real_models_stay_close_to_float32(model: str, tmp_path: Path) -> None:
    source = shared_model(model)
    expected = np.load(source / "expected" / "greedy.npz", allow_pickle=False)
    ids = np.concatenate([expected[key] for key in expected.files if "output_ids" in key])
    windows = np.resize(ids.astype(np.int32), (5 + HELD_OUT_WINDOWS, 32))
    divergences = []
    for dynamic in (False, True):
        out = tmp_path / f"{dynamic}.onnx"
        options = W8A8Options(dynamic=dynamic)
        report = export(source, out, KIND, calibration=CalibrationTokens(windows), w8a8=options)
        assert report.quality is not None
        assert report.quality.onnxruntime_nmse is not None
        assert report.quality.onnxruntime_nmse < MAX_NMSE
        assert 1e-6 < report.quality.kl_nats < 0.02
        assert report.quality.top1 > 0.9
        divergences.append(report.quality.kl_nats)
    assert divergences[1] < divergences[0], "scales per token are finer than one per matrix"


def test_smoothing_helps_where_an_input_channel_is_an_outlier(tmp_path: Path) -> None:
    case = case_named(CASE_NAMES[0])
    name = "model.layers.1.input_layernorm.weight"
    norm = named_weights(name, (case["hidden_size"],))
    norm[7] *= 200
    weights = {}
    for leaf, n_heads in (("q", 8), ("k", 4), ("v", 4)):
        matrix = f"model.layers.1.self_attn.{leaf}_proj.weight"
        weights[matrix] = named_weights(matrix, (n_heads * 8, case["hidden_size"]))
        weights[matrix][:, 7] /= 200
    source = tiny_checkpoint(tmp_path, case, extra={name: norm, **weights})
    kl = {}
    for alpha in (None, 0.5):
        options = W8A8Options(alpha=alpha)
        out = tmp_path / f"{alpha}.onnx"
        tokens = random_tokens(case["vocab_size"])
        report = export(source, out, KIND, calibration=tokens, w8a8=options)
        assert report.quality is not None
        kl[alpha] = report.quality.kl_nats
    assert kl[0.5] < kl[None] / 3


def test_large_constants_go_to_a_file_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_named(CASE_NAMES[1])
    source, tokens = tiny_checkpoint(tmp_path, case), random_tokens(case["vocab_size"])
    inside, beside = tmp_path / "inside.onnx", tmp_path / "beside.onnx"
    export(source, inside, KIND, calibration=tokens)
    monkeypatch.setattr(w8a8, "MAX_INLINE_BYTES", 0)
    report = export(source, beside, KIND, calibration=tokens)
    data = tmp_path / "beside.onnx.data"
    assert report.n_bytes == beside.stat().st_size + data.stat().st_size
    assert beside.stat().st_size < inside.stat().st_size / 2
    ids = np.arange(20)[None]
    np.testing.assert_array_equal(run(inside, ids), run(beside, ids))
    beside.unlink()
    with pytest.raises(FormatError, match=r"beside\.onnx\.data: exists"):
        export(source, beside, KIND, calibration=tokens)


def test_a_file_that_cannot_be_put_in_its_place_takes_the_other_one_with_it(
    tmp_path: Path,
) -> None:
    out, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"

    def write() -> None:
        with whole_files(out, data) as folder:
            (folder / data.name).write_bytes(b"data")
            (folder / out.name).write_bytes(b"graph")
            out.mkdir()  # appears while the files are written

    with pytest.raises(FormatError, match="cannot be written"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert out.is_dir()


def test_what_goes_wrong_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_named(CASE_NAMES[1])
    n_vocab = case["vocab_size"]
    folder = tmp_path / "out"
    folder.mkdir()

    def failure(kind: type[EdgeError], source: Path, **options: Any) -> str:
        given = {"calibration": random_tokens(n_vocab), **options}
        with pytest.raises(kind) as caught:
            export(source, folder / "model.onnx", KIND, **given)
        assert list(folder.iterdir()) == []
        return str(caught.value)

    good = tiny_checkpoint(tmp_path / "good", case)
    name = "model.layers.0.mlp.up_proj.weight"
    weights = named_weights(name, (100, 80))
    weights[50, 3] = np.nan
    bad = tiny_checkpoint(tmp_path / "bad", case, extra={name: weights})
    assert name in failure(NumericError, bad)
    assert "--calibration" in failure(InvalidArgumentError, good, calibration=())
    few = CalibrationTokens(np.zeros((HELD_OUT_WINDOWS, 16), np.int32))
    own = {"w8a8": W8A8Options(n_windows=4)}
    assert "windows of their own" in failure(InvalidArgumentError, good, **own)
    assert "held out" in failure(InvalidArgumentError, good, calibration=few)
    assert "has 203" in failure(FormatError, good, calibration=random_tokens(n_vocab + 900))
    monkeypatch.setattr(w8a8, "MAX_NMSE", -1.0)
    assert "VNNI" in failure(NumericError, good)
    for package, extra in (("onnx", "npu"), ("torch", "compress")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert f"edgellm[{extra}]" in failure(Unsupported, good)


def test_without_onnxruntime_the_graph_is_written_and_said_to_be_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_named(CASE_NAMES[0])
    source, tokens = tiny_checkpoint(tmp_path, case), random_tokens(case["vocab_size"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = export(source, tmp_path / "model.onnx", KIND, calibration=tokens)
    assert report.quality is not None
    assert report.quality.onnxruntime_nmse is None
    assert any("not run" in warning for warning in report.warnings)
    assert onnxruntime_nmse(tmp_path / "model.onnx", tokens.windows[0], np.zeros(1)) is None


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"alpha": math.nan}, {"n_windows": 0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        W8A8Options(**options)


@pytest.mark.slow
def test_the_verb_calibrates_on_text_and_says_how_close_it_came(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.jsonl"
    line = '{"text": "The quick brown fox jumps over the lazy dog, again and again and again."}\n'
    text.write_text(line * 400, encoding="utf-8")
    given = ("--as", KIND, "--calibration", text, "--windows", 4)
    ran = edgellm("export", tiny_checkpoint, "a.onnx", *given, "--json", cwd=tmp_path)
    quality = data_of(ran, "export")["quality"]
    assert quality["onnxruntime_nmse"] < MAX_NMSE
    ran = edgellm("export", tiny_checkpoint, "b.onnx", *given, "--dynamic", cwd=tmp_path)
    assert "held-out tokens" in ran.stdout
    ran = edgellm("export", tiny_checkpoint, "c", "--as", "fp8-tensor", "--dynamic", cwd=tmp_path)
    assert KIND in failure_of(ran, 2)
    ran = edgellm("export", tiny_checkpoint, "c.onnx", "--as", KIND, cwd=tmp_path)
    assert "--calibration" in failure_of(ran, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"text.jsonl", "a.onnx", "b.onnx"}
