"""Flips: answers that were right and are wrong now, or the other way round.

Accuracy hides them when both directions cancel (Dutta et al. 2024, "Accuracy is not all you need");
users do not: each is a question whose answer changed under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidArgumentError
from .bootstrap import SEED, Interval, interval, share_interval
from .golden import Answer


@dataclass(frozen=True)
class Flips:
    """Ids of the questions that changed, the share of both together, and what accuracy says:
    `accuracy_change` is new - old, by paired draws of questions."""

    n_questions: int
    to_wrong: tuple[str, ...]
    to_right: tuple[str, ...]
    rate: Interval
    accuracy_change: Interval


def find_flips(old: Sequence[Answer], new: Sequence[Answer], *, seed: int = SEED) -> Flips:
    """From the answers of two models to the same questions, in the same order."""
    import numpy as np

    if [answer.id for answer in old] != [answer.id for answer in new]:
        message = "flips need the answers of both models to the same questions"
        raise InvalidArgumentError(message, code="invalid_argument")
    right = np.array([(a.correct, b.correct) for a, b in zip(old, new, strict=True)], np.float64)
    changed = right[:, 0] != right[:, 1]
    return Flips(
        n_questions=len(old),
        to_wrong=tuple(a.id for a, b in zip(old, new, strict=True) if a.correct and not b.correct),
        to_right=tuple(a.id for a, b in zip(old, new, strict=True) if b.correct and not a.correct),
        rate=share_interval(int(changed.sum()), len(old)),
        accuracy_change=interval(right, lambda means: means[..., 1] - means[..., 0], seed=seed),
    )
