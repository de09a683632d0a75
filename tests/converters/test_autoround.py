"""AutoRound: codes to roundings and back, one layer's descent, and whole conversions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert, plan_conversion
from edgellm.converters.quant.methods import InputStats, Method, quantize

from edgellm._native import decode_rows
from edgellm.errors import EdgeError, InvalidArgumentError, UnsupportedError

torch = pytest.importorskip("torch")

E_FORMATS = ("E4_16", "E4_32", "E6_16", "E8_32")
RECIPE = """
[[rules]]
pattern = "ffn_down"
format = "E6_16"
method = "gptq"
n_passes = 0
[[rules]]
pattern = "layers.*"
format = "E4_16"
method = "autoround"
start = "gptaq"
n_passes = 0
n_steps = 6
batch_windows = 3
[[rules]]
pattern = "*"
format = "E8_32"
"""


def tokens() -> CalibrationTokens:
    ids = np.random.default_rng(3).integers(2, 258, (6, 24))
    return CalibrationTokens(ids.astype(np.int32))


def matrix(n_rows: int, n_cols: int) -> tuple[np.ndarray, InputStats]:
    rng = np.random.default_rng(n_cols)
    weights = rng.standard_normal((n_rows, n_cols)).astype(np.float32)
    weights[n_rows // 2] = 0
    x = rng.standard_normal((4 * n_cols, n_cols // 4)) @ rng.standard_normal((n_cols // 4, n_cols))
    return weights, InputStats((x.T @ x / len(x)).astype(np.float32))


@pytest.mark.parametrize("format", E_FORMATS)
@pytest.mark.parametrize("start", ["rtn", "gptq"])
@pytest.mark.parametrize("shape", [(16, 32), (5, 40), (33, 100)])
def test_a_rounding_begins_as_the_codes_it_was_given(format, start, shape):
    from edgellm.converters.quant.methods.rounding import Rounding

    weights, stats = matrix(*shape)
    strips = quantize(weights, format, Method(start), stats, 1)
    rounding = Rounding(weights, format, strips)
    decoded = decode_rows(format, strips, *shape, 0, shape[0])
    again = decode_rows(format, rounding.strips(), *shape, 0, shape[0])
    np.testing.assert_array_equal(again, decoded)
    np.testing.assert_array_equal(rounding.weights().numpy(), decoded)


@pytest.mark.parametrize("format", E_FORMATS)
def test_steps_go_to_neighbouring_levels_only_and_back(format):
    from edgellm.converters.quant.methods.levels import levels_of
    from edgellm.converters.quant.methods.rounding import Rounding, codes_of, neighbours

    weights, stats = matrix(16, 64)
    strips = quantize(weights, format, Method("gptq"), stats, 1)
    rounding = Rounding(weights, format, strips)
    start = rounding.state()
    gradient = torch.from_numpy(np.random.default_rng(1).standard_normal((16, 64)).astype("f4"))
    for _ in range(20):
        rounding.step(gradient, rate=0.05, scale_rate=0.0)
    before, after = codes_of(format, strips, 16, 64), codes_of(format, rounding.strips(), 16, 64)
    moved = after.levels - before.levels
    wide = before.scales.repeat_interleave(levels_of(format).group, dim=1)
    # Against the gradient, wherever it moved; rows of zeros have no direction.
    assert bool((moved * wide * gradient * before.d_row[:, None] <= 0).all())
    assert float((moved != 0).float().mean()) > 0.3
    luts = before.luts.repeat_interleave(levels_of(format).group, dim=1)
    down, up = neighbours(levels_of(format), before.levels, luts)
    assert bool(((after.levels >= down) & (after.levels <= up)).all())
    for _ in range(40):
        rounding.step(-gradient, rate=0.05, scale_rate=0.05)
    assert not torch.equal(codes_of(format, rounding.strips(), 16, 64).scales, before.scales)
    rounding.restore(start)
    np.testing.assert_array_equal(rounding.strips(), strips)


def tuning(checkpoint: Path, n_threads: int, same: bool):
    """Layer 1 of the tiny model, on the inputs of a model whose layer 0 is a little off."""
    from edgellm.converters.calibrate.tune import LayerTuning
    from edgellm.converters.calibrate.walk import INPUT_GROUPS, Walk
    from edgellm.converters.quant.methods.rounding import Rounding
    from edgellm.converters.reference import Reference

    plain = Reference.from_checkpoint(checkpoint)
    table, inv_freq = plain.weights["token_embd"].numpy(), plain.weights["rope_inv_freq"].numpy()
    x = table[tokens().windows]
    walk = Walk(plain.spec, {"rope_inv_freq": inv_freq}, x.copy(), x.copy(), n_threads)
    off = {name: w if same else w * 1.02 for name, w in plain.weights.items()}
    walk.advance(0, off, plain.weights)
    roundings = {}
    for role in (role for group in INPUT_GROUPS for role in group):
        name = f"layers.1.{role}"
        weights = plain.weights[name].numpy()
        strips = quantize(weights, "E4_16", Method(), None, 1)
        roundings[name] = Rounding(weights, "E4_16", strips)
    original = dict(plain.weights)
    if same:
        original |= {name: rounding.weights() for name, rounding in roundings.items()}
    return LayerTuning(walk, 1, roundings, plain.weights, original), roundings


def test_a_layer_comes_closer_to_the_originals_outputs_on_any_number_of_threads(tiny_checkpoint):
    method = Method("autoround", n_steps=12, batch_windows=3)
    found = []
    for n_threads in (1, 3):
        layer, roundings = tuning(tiny_checkpoint, n_threads, same=False)
        before, after = layer.run(method)
        assert after < 0.9 * before
        found.append([rounding.strips() for rounding in roundings.values()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_start_that_cannot_be_bettered_is_kept(tiny_checkpoint):
    layer, roundings = tuning(tiny_checkpoint, 1, same=True)
    start = [rounding.strips() for rounding in roundings.values()]
    before, after = layer.run(Method("autoround", n_steps=3, reach=1.0))
    assert before == after == 0.0
    for strips, rounding in zip(start, roundings.values(), strict=True):
        np.testing.assert_array_equal(rounding.strips(), strips)


def test_a_conversion_gives_the_same_bytes_on_any_threads_and_goes_on_where_it_was(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    recipe, work = tmp_path / "recipe.toml", tmp_path / "work"
    recipe.write_text(RECIPE, encoding="utf-8")

    def converted(name: str, n_threads: int, work_dir: Path | None = None) -> bytes:
        out = tmp_path / name
        convert(
            tiny_checkpoint,
            out,
            recipe=recipe,
            calibration=tokens(),
            n_threads=n_threads,
            work_dir=work_dir,
        )
        return out.read_bytes()

    plain = converted("a.edge", 1)
    assert converted("b.edge", 2, work) == plain
    strips = sorted(work.glob("*/*.strips"))
    assert len(strips) == 14
    # A tuned matrix, and one of another method beside tuned ones.
    for lost in ("layers.0.attn_q.strips", "layers.1.ffn_down.strips"):
        next(path for path in strips if path.name == lost).unlink()
    assert converted("c.edge", 1, work) == plain


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (('"gptaq"', '"magic"'), "start 'magic' is not known"),
        (("n_steps = 6", "n_steps = 0"), "1 <= n_steps"),
        (("n_steps = 6", "reach = 2"), "0 < reach <= 1"),
        (("n_steps = 6", "drift = 2"), "0 <= drift <= 1"),
        (('start = "gptaq"', 'start = "rtn"'), "takes no n_passes"),
        (('method = "gptq"\nn_passes = 0', 'method = "autoround"'), "tuned together"),
        (('"E8_32"', '"E8_32"\nmethod = "autoround"'), "must be one of rtn, importance, gptq, not"),
        (('"autoround"', '"gptq"'), "takes no batch_windows, n_steps, start"),
    ],
)
def test_a_recipe_that_cannot_be_honoured_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, changed: tuple[str, str], match: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace(*changed), encoding="utf-8")
    with pytest.raises(EdgeError, match=match):
        plan_conversion(tiny_checkpoint, recipe=recipe, calibration=[recipe])


def test_one_matrix_alone_and_formats_without_scales_are_refused():
    from edgellm.converters.quant.methods.rounding import Rounding

    weights, stats = matrix(16, 32)
    with pytest.raises(InvalidArgumentError, match="needs a whole layer"):
        quantize(weights, "E4_16", Method("autoround"), stats, 1)
    with pytest.raises(UnsupportedError, match="no scales"):
        Rounding(weights, "F16", quantize(weights, "F16", Method(), None, 1))
