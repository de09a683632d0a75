"""A report as Markdown or as one HTML file: blocks in, text out.

What stands in a block may come from a model, a question file or a file name: it is never markup.
Renderers escape all of it, the HTML forbids scripts and loads nothing, and the longer texts stand
in code blocks of Markdown, where nothing is interpreted. Knows nothing of evaluations.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..sanitize import visible, visible_line

_MARKDOWN = re.compile(r"([\\`*_\[\]|~])")
_FENCE = re.compile(r"`{3,}")
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border: 1px solid #ccc; padding: .25rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f4f4f4; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; }
"""
# No script, no network: only what is in the file.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Table:
    """The first cell of a row names it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Quote:
    """A text that is shown as it is, line by line, with what it is above it."""

    label: str
    text: str


@dataclass(frozen=True)
class Plot:
    """`svg` is markup that we made; `title` says what is seen, also where plots are left out."""

    title: str
    svg: str


Block = Heading | Paragraph | Table | Quote | Plot


def to_markdown(blocks: Sequence[Block]) -> str:
    """Plots are named and left out: Markdown viewers strip inline drawings."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One self-contained page."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Table(head, rows):
            lines = [head, ("---", *("---:" for _ in head[1:]))]
            cells = [[_plain(cell) for cell in lines[0]], list(lines[1])]
            cells += [[_plain(cell) for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(row)} |" for row in cells)
        case Quote(label, text):
            shown = visible(text)
            longest = max((len(run) for run in _FENCE.findall(shown)), default=2)
            fence = "`" * (longest + 1)
            return f"{_plain(label)}:\n\n{fence}text\n{shown}\n{fence}"
        case Plot(title, _):
            return f"Plot: {_plain(title)} (in the HTML report)."


def _plain(text: str) -> str:
    """One line in which nothing is markup."""
    escaped = html.escape(visible_line(text), quote=False)
    return _MARKDOWN.sub(r"\\\1", escaped)


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_escaped(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_escaped(text)}</p>"
        case Table(head, rows):
            lines = [_row("th", head), *(_row("td", row) for row in rows)]
            return "<table>\n" + "\n".join(lines) + "\n</table>"
        case Quote(label, text):
            return f"<p>{_escaped(label)}:</p>\n<pre>{html.escape(visible(text))}</pre>"
        case Plot(title, svg):
            return f"<figure>\n{svg}\n<figcaption>{_escaped(title)}</figcaption>\n</figure>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells) + "</tr>"


def _escaped(text: str) -> str:
    return html.escape(visible_line(text))
