"""The release gate: is a new model close enough to the old one? Pass or fail, with each reason.

Every limit that is set becomes one check of a measured figure. The measured value decides; with
`certain` the whole 95 % interval must lie within the limit, so that too few tokens or questions
fail the gate instead of passing it by luck. Knows nothing of how figures are measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import InvalidArgumentError
from .bootstrap import Interval
from .flips import Flips
from .text import TextFigures


@dataclass(frozen=True)
class Limits:
    """What a new model may be, as shares (0.01 is 1 %) and nats; None: not asked.

    max_ppl_increase: new / old perplexity - 1. max_kl: mean KL(old || new). min_top1: share of
    tokens with the same top token. max_flips: share of questions whose answer became right or
    wrong. max_accuracy_drop: old - new accuracy.
    """

    max_ppl_increase: float | None = None
    max_kl: float | None = None
    min_top1: float | None = None
    max_flips: float | None = None
    max_accuracy_drop: float | None = None
    certain: bool = False

    @property
    def need_text(self) -> bool:
        return any(x is not None for x in (self.max_ppl_increase, self.max_kl, self.min_top1))

    @property
    def need_questions(self) -> bool:
        return self.max_flips is not None or self.max_accuracy_drop is not None


@dataclass(frozen=True)
class Check:
    """One figure next to its limit. `certain`: its interval lies on one side of the limit."""

    name: str
    measured: Interval
    limit: float
    passed: bool
    certain: bool
    reason: str


@dataclass(frozen=True)
class Verdict:
    """`passed` if every check is."""

    passed: bool
    checks: tuple[Check, ...]


def judge(limits: Limits, text: TextFigures | None, flips: Flips | None) -> Verdict:
    """InvalidArgumentError where a limit has no figure, or there is no limit at all: a gate that
    judges nothing must not pass."""
    if not limits.need_text and not limits.need_questions:
        raise _invalid("the gate has no limit to judge by")
    if limits.need_text and (text is None or text.against is None):
        raise _invalid("limits on perplexity, KL and top-1 need a text: --text FILE")
    if limits.need_questions and flips is None:
        raise _invalid("limits on flips and accuracy need questions: --questions FILE")
    checks = (*_text_checks(limits, text), *_question_checks(limits, flips))
    return Verdict(all(check.passed for check in checks), checks)


def _text_checks(limits: Limits, text: TextFigures | None) -> Iterator[Check]:
    if text is None or text.against is None:
        return
    against = text.against
    if limits.max_ppl_increase is not None:
        increase = _minus_one(against.perplexity_ratio)
        yield _check("perplexity increase", increase, limits.max_ppl_increase, limits)
    if limits.max_kl is not None:
        yield _check("mean KL", against.kl.mean, limits.max_kl, limits, percent=False)
    if limits.min_top1 is not None:
        yield _check("same top token", against.top1_agreement, limits.min_top1, limits, least=True)


def _question_checks(limits: Limits, flips: Flips | None) -> Iterator[Check]:
    if flips is None:
        return
    if limits.max_flips is not None:
        yield _check("flipped answers", flips.rate, limits.max_flips, limits)
    if limits.max_accuracy_drop is not None:
        drop = _negated(flips.accuracy_change)
        yield _check("accuracy drop", drop, limits.max_accuracy_drop, limits)


def _check(
    name: str,
    measured: Interval,
    limit: float,
    limits: Limits,
    *,
    least: bool = False,
    percent: bool = True,
) -> Check:
    def is_inside(value: float) -> bool:
        return value >= limit if least else value <= limit

    inside = is_inside(measured.value)
    ends = (measured.low, measured.high)
    certain = all(end is not None and is_inside(end) == inside for end in ends)
    passed = inside and (certain or not limits.certain)
    bound = f"{'at least' if least else 'at most'} {_shown(limit, percent)} is asked"
    doubt = "" if certain else "; the interval does not lie on one side: score more to be certain"
    reason = f"{name} {figure(measured, percent)}, {bound}{doubt}"
    return Check(name, measured, limit, passed, certain, reason)


def figure(measured: Interval, percent: bool) -> str:
    """A value and its interval as a reason or a report shows them."""
    value = _shown(measured.value, percent)
    if measured.low is None or measured.high is None:
        return value
    return f"{value} ({_shown(measured.low, percent)} .. {_shown(measured.high, percent)})"


def _shown(value: float, percent: bool) -> str:
    return f"{100 * value:.3f} %" if percent else f"{value:.6f}"


def _minus_one(ratio: Interval) -> Interval:
    low, high = ratio.low, ratio.high
    return Interval(
        ratio.value - 1, None if low is None else low - 1, None if high is None else high - 1
    )


def _negated(change: Interval) -> Interval:
    low, high = change.low, change.high
    return Interval(-change.value, None if high is None else -high, None if low is None else -low)


def _invalid(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")
