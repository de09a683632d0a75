"""The results of `edgellm eval` as plain text: names and figures with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .output import print_table, print_text

if TYPE_CHECKING:
    from ..evaluation import Interval, TextEvaluation, TextFigures


def print_texts(found: TextEvaluation) -> None:
    """One table per text."""
    rows: list[tuple[str, object]] = [("model", found.model_name)]
    if found.reference_name is not None:
        rows.append(("against", found.reference_name))
    n_scored = found.n_ctx - found.first_scored
    rows.append(("windows", f"of {found.n_ctx} tokens, the last {n_scored} scored"))
    print_table(rows)
    for figures in found.figures:
        print_text("\n")
        print_table(_text_rows(figures))


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


def with_interval(figure: Interval, n_decimals: int, *, percent: bool = False) -> str:
    """ "7.912 (7.850 .. 7.981)", or the value alone where there is no interval."""
    scale, unit = (100, " %") if percent else (1, "")
    value = f"{scale * figure.value:.{n_decimals}f}{unit}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ({scale * figure.low:.{n_decimals}f} .. {scale * figure.high:.{n_decimals}f})"
