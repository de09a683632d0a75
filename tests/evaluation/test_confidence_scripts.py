"""benchmarks/confidence.py and cascade.py: what they compute."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.evaluation.cloze import ClozeAnswer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def cascade(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "cascade.py"))


def test_a_curve_against_random_routing(cascade):
    """100 items, of which the small model knows 40 and the large one all, at ten times the cost."""
    right = np.array([[at < 40 for at in range(100)], [True] * 100], float)
    costs = np.array([[1.0] * 100, [10.0] * 100])
    knows = right[0] + np.linspace(0, 0.1, 100)
    best, prices = cascade["curve"](knows, right, costs)
    worst, same_prices = cascade["curve"](-knows, right, costs)
    assert prices.tolist() == same_prices.tolist()
    assert prices[0] == pytest.approx(1 + 0.05 * 10)
    assert best[0] == pytest.approx(0.45)  # 5 % of the items go on, all of them to be mended
    assert worst[0] == pytest.approx(0.40)
    lines = cascade["at_random"](prices, right, costs)
    # What 1.5 pays for at random: (1.5 - 1) / 9 of the items on the large model.
    assert lines[0] == pytest.approx(0.4 + 0.6 * 0.5 / 9)
    assert (best >= lines).sum() > len(lines) / 2
    assert (worst <= lines).all()
    assert lines[-1] == pytest.approx(1.0)  # never more than the large model alone


def test_calibration_error(cascade):
    confidence = runpy.run_path(str(BENCHMARKS / "confidence.py"))
    scores = np.array([0.0, 0.0, 1.0, 1.0])
    right = np.array([False, False, True, True])
    assert confidence["calibration_error"](scores, right, n_bins=2) == 0.0
    assert confidence["calibration_error"](1 - scores, right, n_bins=2) == 1.0


def test_the_tables(cascade, capsys):
    """Probability tells all right answers from wrong ones here, spilled energy none of them."""
    confidence = runpy.run_path(str(BENCHMARKS / "confidence.py"))
    answers = []
    for at in range(60):
        is_right = at % 3 == 0
        values = dict.fromkeys(confidence["SIGNALS"], 0.5)
        values |= {"probability": 0.9 if is_right else 0.1, "mean_probability": at % 3 / 3}
        answers.append(ClozeAnswer(word="w", is_right=is_right, n_tokens=9, **values))
    confidence["signal_table"](answers)
    confidence["calibration_table"](answers)
    said = capsys.readouterr().out
    assert "| probability | 1.000 | 1.000 to 1.000 | | |" in said
    assert "| mean_probability | 0.000 | 0.000 to 0.000 | -1.000 | -1.000 to -1.000 |" in said
    assert "| spilled_energy | 0.500 | 0.500 to 0.500 | -0.500 | -0.500 to -0.500 |" in said
    assert len(said.splitlines()) == 2 + len(confidence["SIGNALS"]) + 3 + 3
