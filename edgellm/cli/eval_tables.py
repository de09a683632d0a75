"""The results of `edgellm eval` as plain text: names and figures with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .output import print_table, print_text

if TYPE_CHECKING:
    from ..evaluation import Evaluation, Flips, GoldenResult, Interval, TextFigures

_MAX_IDS_SHOWN = 10  # of flipped questions; --json and reports have all


def print_evaluation(found: Evaluation) -> None:
    """One table per text and golden set, then the verdict."""
    rows: list[tuple[str, object]] = [("model", found.model_name)]
    if found.reference_name is not None:
        rows.append(("against", found.reference_name))
    if found.texts is not None:
        n_ctx = found.texts.n_ctx
        n_scored = n_ctx - found.texts.first_scored
        rows.append(("windows", f"of {n_ctx} tokens, the last {n_scored} scored"))
    print_table(rows)
    for figures in () if found.texts is None else found.texts.figures:
        print_text("\n")
        print_table(_text_rows(figures))
    for golden in (found.questions, found.reference_questions):
        if golden is not None:
            print_text("\n")
            print_table(_golden_rows(golden))
    if found.flips is not None:
        print_text("\n")
        print_table(_flip_rows(found.flips))
    if found.verdict is not None:
        print_text("\n")
        print_table((_word(check.passed), check.reason) for check in found.verdict.checks)
        print_text(f"\n{_word(found.verdict.passed)}: {found.model_name}\n")


def _word(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def _text_rows(figures: TextFigures) -> Iterator[tuple[str, object]]:
    yield "text", figures.text
    yield "tokens scored", f"{figures.n_scored_tokens} in {figures.n_windows} windows"
    yield "tokens left out", figures.n_left_out
    yield "perplexity", with_interval(figures.perplexity, 3)
    against = figures.against
    if against is None:
        return
    yield "reference perplexity", with_interval(against.reference_perplexity, 3)
    yield "perplexity ratio", with_interval(against.perplexity_ratio, 5)
    yield "mean KL", with_interval(against.kl.mean, 6)
    yield "median KL", f"{against.kl.median:.6f}"
    yield "99 % KL", f"{against.kl.p99:.6f}"
    yield "99.9 % KL", f"{against.kl.p99_9:.6f}"
    yield "same top token", with_interval(against.top1_agreement, 2, percent=True)
    yield "change of p, mean", with_interval(against.mean_p_change, 3, percent=True)
    yield "change of p, RMS", f"{100 * against.rms_p_change:.3f} %"


def _golden_rows(golden: GoldenResult) -> Iterator[tuple[str, object]]:
    yield "questions to", golden.model_name
    for accuracy in golden.accuracies:
        share = with_interval(accuracy.accuracy, 1, percent=True)
        yield accuracy.tag, f"{share} of {accuracy.n_questions} right"
        if accuracy.normalized is not None:
            share = with_interval(accuracy.normalized, 1, percent=True)
            yield f"{accuracy.tag}, per byte", f"{share} of the choices right"


def _flip_rows(flips: Flips) -> Iterator[tuple[str, object]]:
    share = with_interval(flips.rate, 1, percent=True)
    yield "flips", f"{share} of {flips.n_questions}"
    for name, ids in (("to wrong", flips.to_wrong), ("to right", flips.to_right)):
        more = f", and {len(ids) - _MAX_IDS_SHOWN} more" if len(ids) > _MAX_IDS_SHOWN else ""
        listed = f": {', '.join(ids[:_MAX_IDS_SHOWN])}{more}" if ids else ""
        yield name, f"{len(ids)}{listed}"
    yield "change of accuracy", with_interval(flips.accuracy_change, 1, percent=True)


def with_interval(figure: Interval, n_decimals: int, *, percent: bool = False) -> str:
    """ "7.912 (7.850 .. 7.981)", or the value alone where there is no interval."""
    scale, unit = (100, " %") if percent else (1, "")
    value = f"{scale * figure.value:.{n_decimals}f}{unit}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ({scale * figure.low:.{n_decimals}f} .. {scale * figure.high:.{n_decimals}f})"
