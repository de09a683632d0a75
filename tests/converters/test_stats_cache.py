"""Kept moments: found where they would come out the same, and only there; never another byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import Recipe, Rule, matrix_rule, vector_rules

from edgellm.errors import InvalidArgumentError

torch = pytest.importorskip("torch")

SWEEP = Method("gptq", n_passes=0)


def tokens(seed: int = 3) -> CalibrationTokens:
    ids = np.random.default_rng(seed).integers(2, 258, (4, 16))
    return CalibrationTokens(ids.astype(np.int32))


def recipe(*first: Rule) -> Recipe:
    rest = (matrix_rule("layers.*", "E4_16", None, SWEEP), matrix_rule("*", "E4_16", None))
    return Recipe("r", (*vector_rules(), *first, *rest))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The inputs that were measured and not found."""
    from edgellm.converters.calibrate.walk import Walk

    seen: list[str] = []
    measure = Walk.measure

    def counted(self: Any, index: int, converted: Any, original: Any, group: Any) -> Any:
        seen.append(f"{index}.{group[0]}")
        return measure(self, index, converted, original, group)

    monkeypatch.setattr(Walk, "measure", counted)
    return seen


def test_a_second_recipe_measures_only_what_comes_after_the_first_difference(
    tiny_checkpoint: Path, tmp_path: Path, measured: list[str]
) -> None:
    def converted(chosen: Recipe, stats_dir: Path | None, seed: int = 3) -> bytes:
        measured.clear()
        out = tmp_path / "a.edge"
        convert(tiny_checkpoint, out, recipe=chosen, calibration=tokens(seed), stats_dir=stats_dir)
        return out.read_bytes()

    kept = tmp_path / "stats"
    everything = [f"{i}.{role}" for i in (0, 1) for role in ("attn_q", "attn_o", "ffn_gate")]
    everything = sorted([*everything, "0.ffn_down", "1.ffn_down"])
    plain = converted(recipe(), None)
    assert converted(recipe(), kept) == plain
    assert sorted(measured) == everything
    assert converted(recipe(), kept) == plain
    assert measured == []
    last = recipe(matrix_rule("layers.1.ffn_down", "E6_16", None, SWEEP))
    found = converted(last, kept)
    assert measured == []
    assert found == converted(last, None)
    early = recipe(matrix_rule("layers.0.attn_o", "E6_16", None, SWEEP))
    found = converted(early, kept)
    assert sorted(measured) == sorted(set(everything) - {"0.attn_q", "0.attn_o"})
    assert found == converted(early, None)
    converted(recipe(), kept, seed=4)
    assert sorted(measured) == everything
    for path in kept.glob("*/layers.0.*.strips"):
        spoiled = bytearray(path.read_bytes())
        spoiled[50] ^= 1
        path.write_bytes(spoiled)
    assert converted(recipe(), kept) == plain
    assert {place[0] for place in measured} == {"0"}


@pytest.mark.slow
def test_drift_and_unfolded_moments_have_keys_of_their_own(
    tiny_checkpoint: Path, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgellm.converters.calibrate.scaling.ALPHAS", (0.5,))
    kept, out = tmp_path / "stats", tmp_path / "a.edge"
    drifting = matrix_rule("layers.1.*", "E4_16", None, Method("gptaq", n_passes=0))
    scaled = matrix_rule("layers.*", "E4_16", None, SWEEP, "awq")
    for chosen in (recipe(), recipe(drifting), recipe(scaled)):
        files = []
        for stats_dir in (kept, None, kept):
            measured.clear()
            convert(tiny_checkpoint, out, recipe=chosen, calibration=tokens(), stats_dir=stats_dir)
            files.append(out.read_bytes())
        assert measured == []
        assert files[0] == files[1] == files[2]


def test_nothing_can_be_kept_of_a_plain_conversion(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="stats_dir are for calibrated"):
        convert(tiny_checkpoint, tmp_path / "a.edge", stats_dir=tmp_path / "stats")
    assert not (tmp_path / "stats").exists()
