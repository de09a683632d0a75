"""How sure a model was of what it said: signals of every token, calibrated scores of answers.

What each signal is worth is measured in docs/CONFIDENCE.md. Knows no model: numbers come in.
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import FormatError, InvalidArgumentError
from .small_files import read_small
from .strict_json import parse_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MAX_FILE_BYTES = 1 << 20
_MAX_STEPS = 10_000
_FORMAT = "edgellm.calibration.1"


@dataclass(frozen=True)
class TokenSignals:
    """Of the place where a token was chosen, from the model's raw float32 logits, all of them.

    `margin`: probability of the likeliest token less that of the second, 0 to 1. `entropy`: of the
    whole distribution, in nats. `logit`: of the token that was chosen; `log_z`: logarithm of the
    sum of the exponentials of all logits. `logit - log_z` is the token's log probability.
    """

    margin: float
    entropy: float
    logit: float
    log_z: float


@dataclass(frozen=True)
class AnswerSignals:
    """The signals of a token, over an answer: the lowest margin, the mean entropy, and the mean
    spilled energy, None of fewer than two tokens."""

    margin: float
    entropy: float
    spilled_energy: float | None


def token_signals(logits: npt.NDArray[np.float32], token_id: int) -> TokenSignals:
    """Of finite `logits` [n_vocab], after which `token_id` was chosen."""
    import numpy as np

    most = float(logits.max())
    wide = logits.astype(np.float64) - most
    weights = np.exp(wide)
    total = float(weights.sum())
    log_total = math.log(total)
    best = np.partition(weights, -2)[-2:] if len(weights) > 1 else np.array([0.0, 1.0])
    return TokenSignals(
        margin=float(best[1] - best[0]) / total,
        entropy=max(0.0, log_total - float((weights * wide).sum()) / total),
        logit=float(logits[token_id]),
        log_z=log_total + most,
    )


def spilled_energies(signals: Sequence[TokenSignals]) -> list[float]:
    """|log_z after a token - its logit|, of every token but the last. Both are an energy of the
    same text and would be equal if the model were one energy function (Spilled Energy in Large
    Language Models, ICLR 2026)."""
    return [abs(after.log_z - one.logit) for one, after in pairwise(signals)]


def answer_signals(signals: Sequence[TokenSignals]) -> AnswerSignals:
    """Of an answer whose tokens have these. InvalidArgumentError: there are none."""
    if not signals:
        message = "there are no signals: generate with signals=True, and at least one token"
        raise InvalidArgumentError(message, code="invalid_argument")
    spilled = spilled_energies(signals)
    return AnswerSignals(
        margin=min(one.margin for one in signals),
        entropy=math.fsum(one.entropy for one in signals) / len(signals),
        spilled_energy=math.fsum(spilled) / len(spilled) if spilled else None,
    )


def mean_probability(logprobs: Sequence[float]) -> float:
    """The geometric mean of the probabilities of tokens, 1.0 of none."""
    return math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else 1.0


@dataclass(frozen=True)
class Calibration:
    """From a score to the probability that an answer with it is right.

    A rising step function, fitted by isotonic regression (Zadrozny and Elkan 2002): scores up to
    `scores[i]` have the probability `probabilities[i]`, higher ones the last. It holds for one
    model and one kind of question: fit it on answers that were judged, of those that will come.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        n_steps = len(self.scores)
        if not 1 <= n_steps <= _MAX_STEPS or n_steps != len(self.probabilities):
            raise _wrong(f"a calibration has 1..{_MAX_STEPS} scores, each with a probability")
        if not all(map(math.isfinite, self.scores)) or not _rises(self.scores, strictly=True):
            raise _wrong("the scores of a calibration are finite and rise")
        if not all(0 <= one <= 1 for one in self.probabilities) or not _rises(self.probabilities):
            raise _wrong("the probabilities of a calibration are in 0..1 and do not fall")

    def __call__(self, score: float) -> float:
        """The probability of being right, 0 to 1."""
        if math.isnan(score):
            raise _wrong("the score is not a number")
        return self.probabilities[min(bisect_left(self.scores, score), len(self.scores) - 1)]

    @classmethod
    def fit(cls, scores: Sequence[float], is_right: Sequence[bool]) -> Calibration:
        """From answers that were judged, by pooling neighbours that fall. InvalidArgumentError:
        none, or not as many judgements as scores."""
        if not scores or len(scores) != len(is_right):
            message = f"{len(scores)} scores and {len(is_right)} judgements cannot be fitted"
            raise _wrong(message)
        if not all(map(math.isfinite, scores)):
            raise _wrong("scores must be finite to be fitted")
        judged: dict[float, list[bool]] = {}
        for score, right in zip(scores, is_right, strict=True):
            judged.setdefault(score, []).append(right)
        blocks: list[tuple[float, int, int]] = []  # highest score, right answers, answers
        for score in sorted(judged):
            blocks.append((score, sum(judged[score]), len(judged[score])))
            while len(blocks) > 1 and _falls(*blocks[-2:]):
                top, n_right, count = blocks.pop()
                _, right_before, n_before = blocks.pop()
                blocks.append((top, right_before + n_right, n_before + count))
        return cls(
            tuple(top for top, _, _ in blocks), tuple(n_right / n for _, n_right, n in blocks)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON. FormatError: it cannot be written."""
        steps = {"scores": self.scores, "probabilities": self.probabilities}
        try:
            Path(path).write_text(json.dumps({"format": _FORMAT, **steps}), encoding="utf-8")
        except OSError as error:
            message = f"{os.fsdecode(path)}: cannot be written: {error.strerror}"
            raise FormatError(message, code="file_write_failed") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """What `save()` wrote. FormatError."""
        name = os.fsdecode(path)
        found = parse_json(read_small(Path(name), _MAX_FILE_BYTES), name)
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            message = f"{name}: is no calibration: it does not say that its format is {_FORMAT}"
            raise FormatError(message, code="json_type")
        try:
            return cls(_numbers(found.get("scores")), _numbers(found.get("probabilities")))
        except InvalidArgumentError as error:
            message = f"{name}: is no calibration: {error.message}; fit and save it again"
            raise FormatError(message, code="json_type") from None


def _falls(lower: tuple[float, int, int], upper: tuple[float, int, int]) -> bool:
    """Or stays, which is one step, too."""
    return lower[1] * upper[2] >= upper[1] * lower[2]


def _rises(values: Sequence[float], *, strictly: bool = False) -> bool:
    return all(a < b or (a == b and not strictly) for a, b in pairwise(values))


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list):
        raise _wrong("scores and probabilities are lists")
    numbers = [float(one) for one in values if type(one) in (int, float)]  # a bool is none
    if len(numbers) < len(values):
        raise _wrong("scores and probabilities are numbers")
    return tuple(numbers)


def _wrong(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")
