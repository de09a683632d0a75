"""What the signals of confidence are worth: do they tell right answers from wrong ones?

    python benchmarks/confidence.py --texts valid.jsonl[.xz] [--model demo] [--items 2000]

Last-word cloze (edgellm/evaluation/cloze.py) on the books of a corpus in JSON lines {text, kind},
which must be held out. For every signal of the word that the model says: AUROC with its 95 %
interval, and the difference to the word's plain probability, by the paired bootstrap over items.
Then an isotonic calibration of the answer's `confidence`: fitted on every second item, judged on
the others, by Brier score and expected calibration error (10 bins of equal size).

One machine gives one table: the tokens and logits are the same on every CPU. --save FILE keeps the
calibration of all items.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import edgellm
from edgellm.confidence import Calibration
from edgellm.evaluation.cloze import ClozeAnswer, answer_cloze, auroc, cloze_items

N_RESAMPLES = 2000
BASE = "probability"
# Signals that fall when the model is surer.
SIGNALS = {
    "probability": 1,
    "mean_probability": 1,
    "margin": 1,
    "entropy": -1,
    "spilled_energy": -1,
    "most_spilled": -1,
    "first_probability": 1,
    "first_margin": 1,
    "first_entropy": -1,
}
Floats = npt.NDArray[np.float64]


def books_of(path: Path) -> list[str]:
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [one["text"] for one in map(json.loads, lines) if one["kind"] == "books"]


def resampled(n: int) -> list[npt.NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, n, n) for _ in range(N_RESAMPLES)]


def signal_table(answers: Sequence[ClozeAnswer]) -> None:
    right = np.array([one.is_right for one in answers])
    values = {
        name: sign * np.array([getattr(one, name) for one in answers])
        for name, sign in SIGNALS.items()
    }
    draws = resampled(len(right))
    every = {
        name: np.array([auroc(column[draw], right[draw]) for draw in draws])
        for name, column in values.items()
    }
    print("| signal | AUROC | 95 % | against probability | 95 % |\n|---|---|---|---|---|")
    base = auroc(values[BASE], right)
    for name, column in values.items():
        found = auroc(column, right)
        low, high = np.quantile(every[name], [0.025, 0.975])
        text = f"| {name} | {found:.3f} | {low:.3f} to {high:.3f} |"
        less, more = np.quantile(every[name] - every[BASE], [0.025, 0.975])
        text += f" {found - base:+.3f} | {less:+.3f} to {more:+.3f} |" if name != BASE else " | |"
        print(text)


def calibration_error(scores: Floats, right: npt.NDArray[np.bool_], n_bins: int = 10) -> float:
    parts = np.array_split(np.argsort(scores, kind="stable"), n_bins)
    return sum(len(p) * abs(scores[p].mean() - right[p].mean()) for p in parts) / len(scores)


def calibration_table(answers: Sequence[ClozeAnswer]) -> None:
    fitted, judged = answers[::2], answers[1::2]
    calibration = Calibration.fit(
        [one.mean_probability for one in fitted], [one.is_right for one in fitted]
    )
    right = np.array([one.is_right for one in judged])
    raw = np.array([one.mean_probability for one in judged])
    print("\n| confidence | Brier | calibration error |\n|---|---|---|")
    share = np.full(len(raw), np.mean([one.is_right for one in fitted]))
    calibrated = np.array([calibration(score) for score in raw])
    for name, scores in (("share of right", share), ("raw", raw), ("calibrated", calibrated)):
        brier = float(((scores - right) ** 2).mean())
        print(f"| {name} | {brier:.4f} | {calibration_error(scores, right):.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--save", type=Path, help="keep the calibration of all items here")
    given = parser.parse_args()
    items = cloze_items(books_of(given.texts), given.items)
    with edgellm.load(given.model) as model:
        answers = answer_cloze(model, items)
        root = model.info().root
    share = sum(one.is_right for one in answers) / len(answers)
    print(f"{given.model} ({root[:12]}), {len(answers)} items, {share:.1%} right\n")
    signal_table(answers)
    calibration_table(answers)
    if given.save:
        scores = [one.mean_probability for one in answers]
        Calibration.fit(scores, [one.is_right for one in answers]).save(given.save)


if __name__ == "__main__":
    main()
