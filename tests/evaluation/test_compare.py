"""The gate: each limit fails alone, doubt counts where it is asked to, nothing passes unjudged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgellm.errors import InvalidArgumentError
from edgellm.evaluation import Flips, Interval, Limits, TextFigures
from edgellm.evaluation.compare import judge
from edgellm.evaluation.text import AgainstFigures, KlFigures

TEXT = TextFigures(
    text="t",
    sha256="s",
    n_windows=9,
    n_scored_tokens=99,
    n_left_out=0,
    nll=Interval(2.0, 1.9, 2.1),
    perplexity=Interval(7.4, 7.0, 8.0),
    against=AgainstFigures(
        reference_perplexity=Interval(7.3, 6.9, 7.9),
        perplexity_ratio=Interval(1.012, 1.008, 1.017),
        kl=KlFigures(Interval(0.008, 0.007, 0.009), 0.005, 0.05, 0.2, 0.9),
        top1_agreement=Interval(0.95, 0.94, 0.96),
        mean_p_change=Interval(-0.001, -0.002, 0.0),
        rms_p_change=0.02,
    ),
)
FLIPS = Flips(100, ("a", "b"), ("c",), Interval(0.03, 0.01, 0.085), Interval(-0.01, -0.05, 0.02))
WITHIN = Limits(0.015, 0.010, 0.93, 0.05, 0.02)


def test_a_model_within_every_limit_passes():
    verdict = judge(WITHIN, TEXT, FLIPS)
    assert verdict.passed
    assert len(verdict.checks) == 5
    assert all(check.passed for check in verdict.checks)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_ppl_increase": 0.011}, "perplexity increase 1.200 % (0.800 % .. 1.700 %), at most"),
        ({"max_kl": 0.0079}, "mean KL 0.008000 (0.007000 .. 0.009000), at most 0.007900"),
        ({"min_top1": 0.951}, "same top token 95.000 % (94.000 % .. 96.000 %), at least 95.100 %"),
        ({"max_flips": 0.029}, "flipped answers 3.000 %"),
        ({"max_accuracy_drop": 0.009}, "accuracy drop 1.000 % (-2.000 % .. 5.000 %), at most"),
    ],
)
def test_each_limit_fails_alone_and_says_why(change, reason):
    verdict = judge(replace(WITHIN, **change), TEXT, FLIPS)
    assert not verdict.passed
    (failed,) = [check for check in verdict.checks if not check.passed]
    assert failed.reason.startswith(reason)
    assert failed.limit == next(iter(change.values()))


def test_doubt_fails_only_where_certainty_is_asked():
    limits = Limits(max_ppl_increase=0.015)  # the interval reaches 1.7 %
    (check,) = judge(limits, TEXT, None).checks
    assert check.passed
    assert not check.certain
    assert "score more to be certain" in check.reason
    assert not judge(replace(limits, certain=True), TEXT, None).passed
    sure = judge(Limits(max_ppl_increase=0.018, certain=True), TEXT, None)
    assert sure.passed
    assert "certain" not in sure.checks[0].reason


def test_one_window_is_never_certain():
    one = replace(TEXT.against, perplexity_ratio=Interval(1.0))
    text = replace(TEXT, against=one)
    assert judge(Limits(max_ppl_increase=0.5), text, None).passed
    assert not judge(Limits(max_ppl_increase=0.5, certain=True), text, None).passed


def test_a_limit_on_its_edge_passes():
    exact = Limits(max_kl=0.008, min_top1=0.95, max_flips=0.03, max_accuracy_drop=0.01)
    assert judge(exact, TEXT, FLIPS).passed


@pytest.mark.parametrize(
    ("limits", "text", "flips"),
    [
        (Limits(), TEXT, FLIPS),
        (Limits(certain=True), TEXT, FLIPS),
        (Limits(max_kl=1.0), None, FLIPS),
        (Limits(max_kl=1.0), replace(TEXT, against=None), FLIPS),
        (Limits(max_flips=1.0), TEXT, None),
    ],
)
def test_nothing_passes_unjudged(limits, text, flips):
    with pytest.raises(InvalidArgumentError):
        judge(limits, text, flips)
