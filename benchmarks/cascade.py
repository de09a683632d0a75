"""Does asking the large model only where the small one is unsure beat asking it at random?

    python benchmarks/cascade.py SMALL LARGE --texts valid.jsonl[.xz] [--items 2000]

Last-word cloze on held-out books, as benchmarks/confidence.py. Both models answer every item. For
every share of items that goes on to the large model, those with the lowest confidence of the small
one: share of right answers, and cost, in tokens read and generated times parameters. An item that
goes on costs both models. Random routing sends as many items to either model, before any work, as
the same cost pays for: the straight line between both models alone.

The gain is the mean height of the curve above that line, over shares of 5 % to 95 %, with its 95 %
interval by the bootstrap over items. `edgellm.Cascade` is experimental unless it is above 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from confidence import books_of, resampled

import edgellm
from edgellm.evaluation.cloze import ClozeAnswer, ClozeItem, answer_cloze, cloze_items

SHARES = np.arange(0.05, 0.951, 0.05)
# How Cascade decides, by the signal it looks at.
DECIDE = {"answer": "mean_probability", "prefill": "first_probability"}
Floats = npt.NDArray[np.float64]


def answered(name: str, items: Sequence[ClozeItem]) -> tuple[list[ClozeAnswer], int]:
    with edgellm.load(name) as model:
        return answer_cloze(model, items), model.info().n_parameters


def curve(scores: Floats, right: Floats, costs: Floats) -> tuple[Floats, Floats]:
    """Share right and mean cost at every share of SHARES. right, costs: [2, n_items]."""
    n_items = len(scores)
    order = np.argsort(scores, kind="stable")
    qualities, prices = [], []
    for share in SHARES:
        goes_on = np.zeros(n_items, bool)
        goes_on[order[: round(share * n_items)]] = True
        qualities.append(np.where(goes_on, right[1], right[0]).mean())
        prices.append((costs[0] + np.where(goes_on, costs[1], 0)).mean())
    return np.array(qualities), np.array(prices)


def at_random(prices: Floats, right: Floats, costs: Floats) -> Floats:
    """Share right of random routing that costs as much; never more than the large model's."""
    cheap, dear = costs.mean(axis=1)
    share = np.minimum((prices - cheap) / (dear - cheap), 1)
    quality: Floats = (1 - share) * right[0].mean() + share * right[1].mean()
    return quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("small")
    parser.add_argument("large")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--items", type=int, default=2000)
    given = parser.parse_args()
    items = cloze_items(books_of(given.texts), given.items)
    small, n_small = answered(given.small, items)
    large, n_large = answered(given.large, items)
    right = np.array([[one.is_right for one in side] for side in (small, large)], float)
    costs = np.array(
        [
            [one.n_tokens * n_parameters for one in side]
            for side, n_parameters in ((small, n_small), (large, n_large))
        ],
        float,
    )
    print(
        f"{len(items)} items; {given.small}: {right[0].mean():.1%} right, {given.large}: "
        f"{right[1].mean():.1%}, at {costs[1].mean() / costs[0].mean():.1f} times the cost\n"
    )
    for decide, signal in DECIDE.items():
        scores = np.array([getattr(one, signal) for one in small])
        qualities, prices = curve(scores, right, costs)
        lines = at_random(prices, right, costs)
        print(f"decide={decide!r}, by {signal}\n")
        print("| goes on | cost, of the large model's | right | at random |\n|---|---|---|---|")
        for at in range(1, len(SHARES), 2):
            price = prices[at] / costs[1].mean()
            print(f"| {SHARES[at]:.0%} | {price:.2f} | {qualities[at]:.1%} | {lines[at]:.1%} |")
        gains = []
        for draw in resampled(len(items)):
            drawn = (right[:, draw], costs[:, draw])
            qualities_drawn, prices_drawn = curve(scores[draw], *drawn)
            gains.append((qualities_drawn - at_random(prices_drawn, *drawn)).mean())
        low, high = np.quantile(gains, [0.025, 0.975])
        print(f"\ngain {(qualities - lines).mean():+.2%} ({low:+.2%} to {high:+.2%})\n")


if __name__ == "__main__":
    main()
