"""What int8 activations cost: their rounding, the measure, and act "auto" in a conversion."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert, plan_conversion
from edgellm.converters.quant.activations import rounded
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import Recipe, matrix_rule, vector_rules
from safetensors.numpy import load_file, save_file

from edgellm import edgefile
from edgellm.errors import EdgeError, InvalidArgumentError


def inputs(n: int = 64, n_cols: int = 72) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, n_cols)).astype(np.float32)


def test_rounding_is_to_127_steps_of_each_block_of_32():
    x = inputs()
    x[3, 32:64] = 0
    x[4, 32:64] = 1e-35
    steps = np.zeros_like(x)
    for begin in range(0, 72, 32):
        block = x[:, begin : begin + 32]
        steps[:, begin : begin + 32] = np.abs(block).max(axis=1, keepdims=True) / 127
    a8, a8x2 = rounded(x, "a8"), rounded(x, "a8x2")
    live = np.abs(x) > 1e-20
    assert (np.abs(x - a8)[live] <= 0.5001 * steps[live]).all()
    assert (np.abs(x - a8x2)[live] <= 0.5001 * steps[live] / 254 + 1e-7 * np.abs(x[live])).all()
    codes = a8[live] / steps[live]
    np.testing.assert_allclose(codes, codes.round(), atol=1e-4)
    assert np.abs(codes).max() == pytest.approx(127)
    assert not a8[3, 32:64].any()
    assert not a8[4, 32:64].any()


def test_an_act_that_rounds_nothing_is_refused():
    with pytest.raises(InvalidArgumentError, match="'a4' rounds nothing"):
        rounded(inputs(), "a4")


# ---- act = "auto"


def tokens() -> CalibrationTokens:
    ids = np.random.default_rng(3).integers(2, 258, (6, 24))
    return CalibrationTokens(ids.astype(np.int32))


def recipe(act_kl: float | None, scale: str | None = None) -> Recipe:
    names = ("layers.1.ffn_gate", "layers.1.ffn_up", "layers.*")
    scales = (scale, scale, None)
    rules = [
        matrix_rule(name, "E4_16", "auto", Method(), how, act_kl)
        for name, how in zip(names, scales, strict=True)
    ]
    return Recipe("auto", (*vector_rules(), *rules, matrix_rule("*", "F16", None)))


def acts(path: Path) -> dict[str, str | None]:
    tensors = edgefile.read_header(path).tensors
    return {
        name: info.act for name, info in tensors.items() if name.startswith("layers.") and info.act
    }


def test_auto_takes_what_the_limit_allows(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out, work = tmp_path / "a.edge", tmp_path / "work"
    convert(tiny_checkpoint, out, recipe=recipe(0.5), calibration=tokens(), work_dir=work)
    assert set(acts(out).values()) == {"a8"}
    assert len(acts(out)) == 14
    # Even the least cost is too much.
    report = convert(tiny_checkpoint, out, recipe=recipe(1e-30), calibration=tokens())
    assert "f32" in acts(out).values()
    assert "a8" not in acts(out).values()
    assert {item.name: item.act for item in report.tensors if item.name in acts(out)} == acts(out)


@pytest.fixture(scope="module")
def outliers(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with one channel of an input 1000 times as large, and the weights that
    read it 1000 times as small: to rounding, the same model."""
    path = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("outliers") / "tiny")
    file, prefix = path / "model.safetensors", "model.layers.1."
    tensors = {name: value.astype(np.float32) for name, value in load_file(file).items()}
    tensors[prefix + "post_attention_layernorm.weight"][5] *= 1000
    for name in ("gate_proj", "up_proj"):
        tensors[f"{prefix}mlp.{name}.weight"][:, 5] /= 1000
    save_file(tensors, file, metadata={"format": "pt"})
    return path


def test_two_rows_are_for_the_tensors_that_outliers_cost_most(
    outliers: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    out, work = tmp_path / "a.edge", tmp_path / "work"
    convert(outliers, out, recipe=recipe(1e-3), calibration=tokens(), work_dir=work)
    twice = {name for name, act in acts(out).items() if act == "a8x2"}
    assert twice == {"layers.1.ffn_gate", "layers.1.ffn_up"}
    assert set(acts(out).values()) == {"a8", "a8x2"}
    kept, settled = out.read_bytes(), sorted(work.glob("*/*.act.strips"))
    assert len(settled) == 14
    for file in settled[3::4]:
        file.unlink()
    convert(outliers, out, recipe=recipe(1e-3), calibration=tokens(), work_dir=work)
    assert out.read_bytes() == kept
    # Scales folded into the norm before do away with them.
    convert(outliers, out, recipe=recipe(1e-3, "smooth"), calibration=tokens())
    assert set(acts(out).values()) == {"a8"}


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        ([matrix_rule("*", "E4_16", "auto")], "act 'auto' is for the layers' matrices"),
        ([matrix_rule("layers.*", "E4_16", "auto"), matrix_rule("*", "F16", None)], "calibration"),
    ],
)
def test_auto_is_refused_where_it_cannot_be_settled(
    tiny_checkpoint: Path, rules: list, match: str
) -> None:
    calibration = tokens() if "layers" in match else ()
    chosen = Recipe("r", (*vector_rules(), *rules))
    with pytest.raises(EdgeError, match=match):
        plan_conversion(tiny_checkpoint, recipe=chosen, calibration=calibration)


def test_a_limit_without_auto_is_refused():
    for act, limit in (("a8", 0.1), ("auto", 0.0), ("auto", float("inf"))):
        with pytest.raises(InvalidArgumentError, match="act_kl"):
            matrix_rule("*", "E4_16", act, None, None, limit)
