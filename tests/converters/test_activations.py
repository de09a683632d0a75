"""What int8 activations cost: their rounding, the measure, and act "auto" in a conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert, plan_conversion
from edgellm.converters.quant.activations import activation_error, rounded
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import Recipe, matrix_rule, vector_rules

from edgellm import edgefile
from edgellm.errors import EdgeError, InvalidArgumentError, NumericError


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


def test_outliers_cost_a8_much_and_a8x2_nothing():
    """A channel 300 times as large that the weights do not read: all that is left is rounding."""
    x, weights = inputs(), inputs(24)
    x[:, 40] *= 300
    weights[:, 40] = 0
    errors = activation_error(weights, x)
    assert list(errors) == ["a8", "a8x2"]
    assert errors["a8"] > 0.02
    assert errors["a8x2"] < 1e-4 * errors["a8"]
    plain = activation_error(weights, inputs())
    assert 1e-5 < plain["a8"] < 1e-4
    assert activation_error(np.zeros_like(weights), x) == {"a8": 0.0, "a8x2": 0.0}


def test_the_least_act_within_the_limit_is_taken():
    pytest.importorskip("torch")
    from edgellm.converters.calibrate.acts import cheapest

    assert cheapest({"a8": 1e-3, "a8x2": 1e-8}, 1e-3) == "a8"
    assert cheapest({"a8": 1e-3, "a8x2": 1e-3}, 1e-4) == "f32"


def test_bad_arguments_are_refused():
    x, weights = inputs(), inputs(24)
    with pytest.raises(InvalidArgumentError, match="'a4' rounds nothing"):
        rounded(x, "a4")
    with pytest.raises(InvalidArgumentError, match=r"\[24, 71\] do not take inputs \[64, 72\]"):
        activation_error(weights[:, 1:], x)
    x[5, 5] = np.inf
    with pytest.raises(NumericError, match="not finite"):
        activation_error(weights, x)


# ---- act = "auto"


def tokens() -> CalibrationTokens:
    ids = np.random.default_rng(3).integers(2, 258, (6, 24))
    return CalibrationTokens(ids.astype(np.int32))


def recipe(act_error: float | None) -> Recipe:
    body = matrix_rule("layers.*", "E4_16", "auto", Method(), None, act_error)
    return Recipe("auto", (*vector_rules(), body, matrix_rule("*", "F16", None)))


def acts(path: Path) -> set[str | None]:
    tensors = edgefile.read_header(path).tensors
    return {info.act for name, info in tensors.items() if name.startswith("layers.") and info.act}


def test_auto_takes_what_the_limit_allows(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out, work = tmp_path / "a.edge", tmp_path / "work"
    convert(tiny_checkpoint, out, recipe=recipe(0.5), calibration=tokens(), work_dir=work)
    assert acts(out) == {"a8"}
    kept, settled = out.read_bytes(), sorted(work.glob("*/*.act.strips"))
    assert len(settled) == 14
    settled[5].unlink()
    convert(tiny_checkpoint, out, recipe=recipe(0.5), calibration=tokens(), work_dir=work)
    assert out.read_bytes() == kept
    report = convert(tiny_checkpoint, out, recipe=recipe(1e-14), calibration=tokens())
    assert {item.act for item in report.tensors} == {"f32"} == acts(out)
    convert(tiny_checkpoint, out, recipe=recipe(1e-7), calibration=tokens())
    assert acts(out) == {"a8x2"}


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
    for act, limit in (("a8", 0.1), ("auto", 0.0), ("auto", 1.0)):
        with pytest.raises(InvalidArgumentError, match="act_error"):
            matrix_rule("*", "E4_16", act, None, None, limit)
