"""An evaluation as a report for people: Markdown, or one HTML file with plots.

The same evaluation gives the same bytes: no dates, no random names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..durable import write_whole
from ..errors import InvalidArgumentError, UnsupportedError
from .bootstrap import Interval
from .compare import figure
from .evaluate import Evaluation, TextEvaluation
from .flips import Flips
from .golden import Answer, GoldenResult
from .report_render import Block, Heading, Paragraph, Plot, Quote, Table, to_html, to_markdown
from .text import TextFigures

SUFFIXES = (".md", ".html")
_MAX_SAMPLES, _MAX_SAMPLE_CHARS = 20, 600
_NOTE = "In brackets: 95 % intervals by bootstrap over windows; of questions: by formula."


def write_report(found: Evaluation, path: Path) -> list[str]:
    """Write `path`, whole or not at all; returns what was left out and how to get it.

    FormatError where it cannot be written, InvalidArgumentError for another suffix than .md or
    .html.
    """
    if path.suffix not in SUFFIXES:
        message = f"{path}: a report is FILE.md or FILE.html"
        raise InvalidArgumentError(message, code="invalid_argument")
    left_out: list[str] = []
    blocks = list(_blocks(found))
    if path.suffix == ".html":
        try:
            blocks += list(_plots(found))
        except UnsupportedError as error:
            left_out.append(f"the report has no plots: {error.message}")
            blocks.append(Paragraph(f"Plots are left out: {error.message}"))
        text = to_html(f"Evaluation of {found.model_name}", blocks)
    else:
        if found.texts is not None and found.reference_name is not None:
            blocks.append(Paragraph("Plots stand in the HTML report only."))
        text = to_markdown(blocks)
    write_whole(path, text)
    return left_out


def _blocks(found: Evaluation) -> Iterator[Block]:
    yield Heading(f"Evaluation of {found.model_name}", 1)
    if found.verdict is not None:
        yield Heading("Verdict: " + ("pass" if found.verdict.passed else "fail"))
        yield Table(
            ("", "reason"),
            tuple(("pass" if c.passed else "FAIL", c.reason) for c in found.verdict.checks),
        )
    yield Heading("What was compared")
    yield Table(("", "model", "reference"), tuple(_identity(found)))
    yield Paragraph(_NOTE)
    if found.texts is not None:
        yield from _text_blocks(found.texts)
    if found.questions is not None:
        yield Heading("Questions")
        yield _golden_table(found.questions, found.reference_questions)
    if found.flips is not None:
        yield from _flip_blocks(found, found.flips)
    elif found.questions is not None:
        wrong = [answer for answer in found.questions.answers if not answer.correct]
        yield from _samples("Wrong answers", wrong, {})


def _identity(found: Evaluation) -> Iterator[tuple[str, str, str]]:
    yield "name", found.model_name, found.reference_name or "none"
    texts = found.texts
    reference_root = None if texts is None else texts.reference_root
    yield "hash root", found.model_root, reference_root or "not known"
    yield "keys and values", found.kv_format, ""
    if texts is not None:
        yield "bytes", f"{texts.model_bytes:,}", ""
        n_scored = texts.n_ctx - texts.first_scored
        yield "windows", f"{texts.n_ctx} tokens, the last {n_scored} scored", ""


def _text_blocks(texts: TextEvaluation) -> Iterator[Block]:
    yield Heading("Texts")
    names = [f"{number}: {one.text}" for number, one in enumerate(texts.figures, start=1)]
    columns = [dict(_text_rows(one)) for one in texts.figures]
    rows = ((name, *(column[name] for column in columns)) for name in columns[0])
    yield Table(("", *names), tuple(rows))


def _text_rows(one: TextFigures) -> Iterator[tuple[str, str]]:
    yield "tokens scored", f"{one.n_scored_tokens:,}"
    yield "windows", f"{one.n_windows:,}"
    yield "tokens left out", f"{one.n_left_out:,}"
    yield "perplexity", _figure(one.perplexity, 3)
    against = one.against
    if against is None:
        return
    yield "perplexity of the reference", _figure(against.reference_perplexity, 3)
    yield "perplexity ratio", _figure(against.perplexity_ratio, 5)
    yield "mean KL, nats", _figure(against.kl.mean, 6)
    yield "median KL", f"{against.kl.median:.6f}"
    yield "99 % KL", f"{against.kl.p99:.6f}"
    yield "99.9 % KL", f"{against.kl.p99_9:.6f}"
    yield "largest KL", f"{against.kl.max:.6f}"
    yield "same top token", figure(against.top1_agreement, True)
    yield "mean change of p of the right token", figure(against.mean_p_change, True)
    yield "RMS change of p of the right token", f"{100 * against.rms_p_change:.3f} %"


def _golden_table(golden: GoldenResult, reference: GoldenResult | None) -> Table:
    head = ["tag", "questions", golden.model_name]
    others = {} if reference is None else {a.tag: a for a in reference.accuracies}
    if reference is not None:
        head.append(reference.model_name)
    rows: list[tuple[str, ...]] = []
    for accuracy in golden.accuracies:
        other = others.get(accuracy.tag)
        right = [figure(accuracy.accuracy, True)]
        per_byte = [accuracy.normalized]
        if other is not None:
            right.append(figure(other.accuracy, True))
            per_byte.append(other.normalized)
        rows.append((accuracy.tag, str(accuracy.n_questions), *right))
        if accuracy.normalized is not None:
            shares = (figure(one, True) for one in per_byte if one is not None)
            rows.append((f"{accuracy.tag}, choices per byte", "", *shares))
    return Table(tuple(head), tuple(rows))


def _flip_blocks(found: Evaluation, flips: Flips) -> Iterator[Block]:
    yield Heading("Flips")
    yield Paragraph(
        f"{len(flips.to_wrong)} answers became wrong and {len(flips.to_right)} right, of "
        f"{flips.n_questions}: {figure(flips.rate, True)}; accuracy changed by "
        f"{figure(flips.accuracy_change, True)}."
    )
    assert found.questions is not None
    assert found.reference_questions is not None
    before = {answer.id: answer for answer in found.reference_questions.answers}
    for title, ids in (("Became wrong", flips.to_wrong), ("Became right", flips.to_right)):
        chosen = set(ids)
        answers = [answer for answer in found.questions.answers if answer.id in chosen]
        yield from _samples(title, answers, before)


def _samples(title: str, answers: list[Answer], before: dict[str, Answer]) -> Iterator[Block]:
    if not answers:
        return
    more = f", the first {_MAX_SAMPLES} of {len(answers)}" if len(answers) > _MAX_SAMPLES else ""
    yield Heading(title + more)
    for answer in answers[:_MAX_SAMPLES]:
        yield Heading(answer.id, 3)
        yield Quote("Question", _cut(answer.question))
        yield Quote("Expected", _cut("\nor\n".join(answer.expected)))
        if answer.id in before:
            yield Quote("Answer of the reference", _cut(before[answer.id].answer))
        yield Quote("Answer", _cut(answer.answer))


def _plots(found: Evaluation) -> Iterator[Block]:
    """UnsupportedError where matplotlib is missing."""
    from .plots import kl_tail_svg, window_loss_svg

    if found.texts is None:
        return
    kl, losses = [], []
    for one in found.texts.scored:
        if one.scores.against is not None:
            kl.append(one.scores.against.kl)
            theirs = one.scores.against.reference_nll
            losses.append((one.scores.nll.mean(axis=1), theirs.mean(axis=1)))
    if not kl:
        return
    yield Heading("Plots")
    yield Plot("Share of tokens whose KL divergence is above a value", kl_tail_svg(kl))
    yield Plot("Change of the loss, window by window", window_loss_svg(losses))


def _figure(measured: Interval, n_decimals: int) -> str:
    value = f"{measured.value:.{n_decimals}f}"
    if measured.low is None or measured.high is None:
        return value
    return f"{value} ({measured.low:.{n_decimals}f} .. {measured.high:.{n_decimals}f})"


def _cut(text: str) -> str:
    if len(text) <= _MAX_SAMPLE_CHARS:
        return text
    return f"{text[:_MAX_SAMPLE_CHARS]}\n[{len(text) - _MAX_SAMPLE_CHARS} more characters]"
