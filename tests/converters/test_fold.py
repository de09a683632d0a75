"""Scalings: the folded model is the same function, and what is chosen lowers the outputs' error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert, plan_conversion
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.fold import CONSUMERS, Folds
from edgellm.converters.plan import Job, Options
from edgellm.converters.quant.methods import InputStats, Method
from edgellm.converters.recipe import Recipe, matrix_rule, vector_rules

from edgellm import edgefile
from edgellm.errors import EdgeError, NumericError

torch = pytest.importorskip("torch")


def tokens(n_windows: int = 6) -> CalibrationTokens:
    ids = np.random.default_rng(3).integers(2, 258, (n_windows, 24))
    return CalibrationTokens(ids.astype(np.int32))


def recipe(scale: str, method: str = "rtn") -> Recipe:
    body = matrix_rule("layers.*", "E4_16", None, Method(method, n_passes=0), scale)
    return Recipe("scaled", (*vector_rules(), body, matrix_rule("*", "F16", None)))


# ---- folding


def test_the_folded_model_is_the_original(tiny_checkpoint: Path) -> None:
    """Every fold of every layer by factors of 1/16 to 16, with fewer value heads than heads."""
    from edgellm.converters.reference import Reference

    plain = Reference.from_checkpoint(tiny_checkpoint)
    assert plain.spec.layers[0].n_kv_heads < plain.spec.layers[0].n_heads
    rng = np.random.default_rng(1)
    weights = dict(plain.weights)
    with Checkpoint(tiny_checkpoint) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        for index in range(len(job.spec.layers)):
            for role in CONSUMERS:
                producer = f"layers.{index}.{role}"
                n = job.folds.width(producer)
                job.folds.set(producer, (16 ** rng.uniform(-1, 1, n)).astype(np.float32))
        for item in job.planned:
            if item.source is not None:
                first = item.rows_cols[0] // 2  # in two parts: factors of rows go by row0
                parts = [job.read_rows(item, 0, first)] if first else []
                parts.append(job.read_rows(item, first, item.rows_cols[0] - first))
                weights[item.name] = torch.from_numpy(np.concatenate(parts).reshape(item.shape))
    changed = [name for name, w in weights.items() if not torch.equal(w, plain.weights[name])]
    assert len(changed) == 9 * len(plain.spec.layers)
    ids = tokens().windows[0].tolist()
    original = plain.logits(ids)
    folded = Reference(plain.spec, weights).logits(ids)
    assert float((folded - original).abs().max()) < 1e-5 * max(1.0, float(original.abs().max()))


def test_factors_that_cannot_be_divided_by_are_refused(tiny_checkpoint: Path) -> None:
    with Checkpoint(tiny_checkpoint) as checkpoint:
        folds = Folds(Job(checkpoint, Options("F16", None, None, None)).spec)
    for bad in (0.0, -1.0, np.inf, np.nan):
        factors = np.ones(folds.width("layers.0.ffn_up"), dtype=np.float32)
        factors[3] = bad
        with pytest.raises(NumericError, match=r"layers\.0\.ffn_up.*positive"):
            folds.set("layers.0.ffn_up", factors)


# ---- the search


def outlier_input(kind: str) -> tuple[list, object]:
    """Eight channels of 128 that are 30 times as large as the rest, and eight of nothing."""
    from edgellm.converters.calibrate.scaling import Consumer, Input

    rng = np.random.default_rng(2)
    x = rng.standard_normal((256, 128)).astype(np.float32)
    x[:, 5:128:16] *= 30
    x[:, 9:128:16] = 0
    stats = InputStats((x.T @ x / len(x)).astype(np.float32))
    weights = rng.standard_normal((48, 128)).astype(np.float32)
    consumers = [Consumer(weights, "E4_16", Method(), "a8")]
    return consumers, Input(stats, x, np.arange(128))


@pytest.mark.parametrize("kind", ["awq", "smooth"])
def test_outliers_are_scaled_and_the_output_error_falls(kind: str) -> None:
    from edgellm.converters.calibrate.scaling import _loss, best_factors

    consumers, x = outlier_input(kind)
    factors = best_factors(kind, consumers, x, 1)
    assert factors is not None
    assert factors[5::16].mean() > 2 * np.delete(factors, np.s_[5::16]).mean()
    ones = np.ones(128, dtype=np.float32)
    lost = [_loss(kind, consumers, x, which, 1) for which in (ones, factors)]
    assert lost[1] < 0.8 * lost[0]


def test_where_scaling_does_not_help_there_is_none() -> None:
    from edgellm.converters.calibrate.scaling import Consumer, Input, best_factors

    rng = np.random.default_rng(4)
    weights = (rng.integers(-8, 8, (32, 64)) / 8).astype(np.float32)  # F16 has no error to lower
    x = rng.standard_normal((512, 64)).astype(np.float32)
    stats = InputStats((x.T @ x / len(x)).astype(np.float32))
    consumers = [Consumer(weights, "F16", Method(), "f32")]
    assert best_factors("awq", consumers, Input(stats, x, np.arange(64)), 1) is None


def test_heads_that_share_a_value_channel_share_its_factor() -> None:
    from edgellm.converters.calibrate.scaling import Input, candidate

    consumers, x = outlier_input("awq")
    owners = np.concatenate([np.arange(64), np.arange(64)])
    shared = Input(x.stats, x.sample, owners)
    for kind in ("awq", "smooth"):
        assert candidate(kind, consumers, shared, 0.5).shape == (64,)


# ---- conversions


def test_a_scaled_conversion_is_the_same_on_any_threads_and_after_an_interruption(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgellm.converters.calibrate.scaling.ALPHAS", (0.3, 0.6))

    def converted(name: str, n_threads: int, work_dir: Path | None = None) -> bytes:
        convert(
            tiny_checkpoint,
            tmp_path / name,
            recipe=recipe("awq"),
            calibration=tokens(),
            n_threads=n_threads,
            work_dir=work_dir,
        )
        return (tmp_path / name).read_bytes()

    work = tmp_path / "work"
    plain = converted("a.edge", 1)
    assert converted("b.edge", 2, work) == plain
    scales = sorted(work.glob("*/*.scale.strips"))
    assert len(scales) == 8
    scales[3].unlink()
    assert converted("c.edge", 1, work) == plain
    stored = json.loads(bytes(edgefile.read_tensor(tmp_path / "a.edge", "recipe")))
    assert [rule.get("scale") for rule in stored["rules"]].count("awq") == 1


def test_a_scaled_file_says_what_the_model_says(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With eight bits a weight nothing is left but the fold itself."""
    from edgellm.converters.reference import Reference

    monkeypatch.setattr("edgellm.converters.calibrate.scaling.ALPHAS", (0.5,))
    body = matrix_rule("layers.*", "E8_32", None, Method("gptq", n_passes=0), "smooth")
    out = tmp_path / "a.edge"
    rules = (*vector_rules(), body, matrix_rule("*", "F16", None))
    convert(tiny_checkpoint, out, recipe=Recipe("r", rules), calibration=tokens())
    ids = tokens().windows[0].tolist()
    plain, file = Reference.from_checkpoint(tiny_checkpoint), Reference.from_edge(out)
    norms = [name for name in plain.weights if name.endswith("_norm")]
    assert any(not torch.equal(plain.weights[n], file.weights[n]) for n in norms)
    original = plain.logits(ids)
    assert float((file.logits(ids) - original).square().mean() / original.square().mean()) < 1e-3


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        ([("*", "awq")], "'token_embd' can take its scales"),
        ([("attn_q", "awq"), ("*", None)], "read the same input"),
        ([("attn_q", "awq"), ("layers.*", "smooth"), ("*", None)], "read the same input"),
    ],
)
def test_scales_that_cannot_be_folded_are_refused(
    tiny_checkpoint: Path, rules: list[tuple[str, str | None]], match: str
) -> None:
    matrices = [matrix_rule(pattern, "E4_16", None, None, scale) for pattern, scale in rules]
    with pytest.raises(EdgeError, match=match):
        plan_conversion(
            tiny_checkpoint,
            recipe=Recipe("r", (*vector_rules(), *matrices)),
            calibration=tokens(),
        )


def test_scaling_needs_calibration_and_a_known_name(tiny_checkpoint: Path) -> None:
    with pytest.raises(EdgeError, match="scale = 'awq', which needs calibration text"):
        plan_conversion(tiny_checkpoint, recipe=recipe("awq"))
    with pytest.raises(EdgeError, match="'quip' is not known"):
        matrix_rule("*", "E4_16", None, None, "quip")
