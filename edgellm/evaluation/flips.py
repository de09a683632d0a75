"""Flips: answers that were right and are wrong now, or the other way round.

Accuracy hides them when both directions cancel (Dutta et al. 2024, "Accuracy is not all you need");
users do not: each is a question whose answer changed under them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidArgumentError
from .bootstrap import Interval, share_change_interval, share_interval
from .golden import Answer


@dataclass(frozen=True)
class Flips:
    """Ids of the questions that changed, the share of both together, and what accuracy says:
    `accuracy_change` is new - old, question by question."""

    n_questions: int
    to_wrong: tuple[str, ...]
    to_right: tuple[str, ...]
    rate: Interval
    accuracy_change: Interval


def find_flips(old: Sequence[Answer], new: Sequence[Answer]) -> Flips:
    """From the answers of two models to the same questions, in the same order."""
    if [answer.id for answer in old] != [answer.id for answer in new]:
        message = "flips need the answers of both models to the same questions"
        raise InvalidArgumentError(message, code="invalid_argument")
    pairs = list(zip(old, new, strict=True))
    to_wrong = tuple(a.id for a, b in pairs if a.correct and not b.correct)
    to_right = tuple(a.id for a, b in pairs if b.correct and not a.correct)
    return Flips(
        n_questions=len(old),
        to_wrong=to_wrong,
        to_right=to_right,
        rate=share_interval(len(to_wrong) + len(to_right), len(old)),
        accuracy_change=share_change_interval(len(to_right), len(to_wrong), len(old)),
    )
