"""Reports: complete, the same bytes every time, and nothing of a model's text becomes markup."""

from __future__ import annotations

import importlib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgellm.errors import FormatError, InvalidArgumentError
from edgellm.evaluation import Answer, Evaluation, GoldenResult, Limits, TextEvaluation
from edgellm.evaluation.compare import judge
from edgellm.evaluation.flips import find_flips
from edgellm.evaluation.golden import accuracies
from edgellm.evaluation.report import write_report
from edgellm.evaluation.report_render import Paragraph, Quote, Table, to_markdown
from edgellm.evaluation.scores import AgainstScores, TokenScores
from edgellm.evaluation.text import ScoredText, text_figures
from edgellm.evaluation.windows import TextWindows

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> ```\n</pre>\x1b[31m\u202e"


def golden(name: str, right: str) -> GoldenResult:
    answers = tuple(
        Answer(f"q{i} {EVIL}", EVIL, (EVIL,), (EVIL,), f"{name} says {EVIL}", mark == "+")
        for i, mark in enumerate(right)
    )
    return GoldenResult(name, answers, accuracies(answers))


def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    nll = 3 + rng.standard_normal((12, 30))
    shift = 0.02 * rng.standard_normal(nll.shape)
    against = AgainstScores(nll, np.abs(shift), shift < 0.03, shift / 9)
    scores = TokenScores(nll + shift, against)
    windows = TextWindows(f"text {EVIL}", "ab" * 32, np.zeros((12, 60), np.int32), 30, 7)
    scored = ScoredText(windows, scores)
    figures = (text_figures(scored),)
    names = (f"new {EVIL}", "11" * 32, 12345, "old", "22" * 32)
    texts = TextEvaluation(*names, 60, 30, figures, (scored,))
    new, old = golden(f"new {EVIL}", "+-+-"), golden("old", "++--")
    flips = find_flips(old.answers, new.answers)
    verdict = judge(Limits(max_kl=0.5, max_flips=0.1), texts.total, flips)
    return Evaluation(
        f"new {EVIL}", "11" * 32, "old", texts, new, old, flips=flips, verdict=verdict
    )


class Tags(HTMLParser):
    """Every tag, attribute and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str) -> ModuleType:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)


def test_html_without_matplotlib_says_what_is_missing(tmp_path, monkeypatch):
    without_matplotlib(monkeypatch)
    left_out = write_report(evaluation(), tmp_path / "r.html")
    assert len(left_out) == 1
    assert "pip install 'edgellm[report]'" in left_out[0]
    page = Tags((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "svg" not in page.tags
    assert any("Plots are left out: plots need matplotlib" in text for text in page.texts)


def test_nothing_of_a_text_becomes_markup(tmp_path, monkeypatch):
    without_matplotlib(monkeypatch)
    write_report(evaluation(), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Tags(text)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "pre"}
    assert set(page.tags) <= allowed | {"table", "tr", "th", "td"}
    assert page.tags.count("pre") == 2 * 4  # two flips: question, expected, both answers
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in page.attributes)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert any("<script>alert(1)</script>" in data for data in page.texts)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_markdown_shows_texts_in_blocks_that_they_cannot_close(tmp_path):
    assert write_report(evaluation(), tmp_path / "r.md") == []
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    outside, fence = [], ""
    for line in text.splitlines():
        if fence:
            fence = "" if line == fence else fence
        elif line.startswith("```"):
            fence = line.removesuffix("text")
            assert len(fence) == 4  # longer than any run of them inside
        else:
            outside.append(line)
    assert not fence
    assert not any("<" in line for line in outside)
    assert "Plots stand in the HTML report only." in outside
    assert "\x1b" not in text


def test_all_figures_are_in_both(tmp_path, monkeypatch):
    without_matplotlib(monkeypatch)
    found = evaluation()
    for name in ("r.md", "r.html"):
        write_report(found, tmp_path / name)
        text = (tmp_path / name).read_text(encoding="utf-8")
        against = found.texts.total.against
        for wanted in (
            f"{found.texts.total.perplexity.value:.3f}",
            f"{against.kl.mean.value:.6f}",
            f"{100 * against.top1_agreement.value:.3f} %",
            "50.000 %",  # flips
            "Verdict: fail",
            "11" * 32,
            "22" * 32,
        ):
            assert wanted in text, (name, wanted)


def test_plots_are_drawings_without_references(tmp_path):
    pytest.importorskip("matplotlib", reason="NOT TESTED: plots; pip install 'edgellm[report]'")
    assert write_report(evaluation(), tmp_path / "a.html") == []
    write_report(evaluation(), tmp_path / "b.html")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert page.tags.count("svg") == 2
    assert "script" not in page.tags
    linked = [value for name, value in page.attributes if name in ("href", "xlink:href", "src")]
    assert all(value.startswith("#") for value in linked)


def test_a_cell_cannot_break_a_table():
    text = to_markdown([Table(("a|b", "c"), (("x\ny", "`z`"),)), Paragraph("*not bold* <b>")])
    assert text.splitlines()[0] == r"| a\|b | c |"
    assert len(text.splitlines()) == 5
    assert r"\*not bold\* &lt;b&gt;" in text
    assert to_markdown([Quote("Answer", "a\n`````\nb")]).count("``````") == 2


def test_a_report_is_whole_or_not_there(tmp_path: Path):
    with pytest.raises(InvalidArgumentError, match=r"FILE\.md or FILE\.html"):
        write_report(evaluation(), tmp_path / "r.pdf")
    with pytest.raises(FormatError, match="cannot be written"):
        write_report(evaluation(), tmp_path / "missing" / "r.md")
    (tmp_path / "r.md").mkdir()
    with pytest.raises(FormatError):
        write_report(evaluation(), tmp_path / "r.md")
    assert [path.name for path in tmp_path.iterdir()] == ["r.md"]
