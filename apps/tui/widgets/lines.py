"""Finished lines of the transcript, and text wrapped into them. Made once, drawn many times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.segment import Segment
from textual.content import Content
from textual.style import Style

# A wide character must fit.
FEWEST_CELLS = 2


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """A line as it is drawn. `n_skipped` characters at its start are decoration, not text; `joint`
    is what stands between the line before and this one in what is copied."""

    segments: Sequence[Segment]
    n_skipped: int = 0
    joint: str = "\n"

    @property
    def text(self) -> str:
        """All of it, decoration included."""
        return "".join(segment.text for segment in self.segments)


BLANK = Line(())


def wrapped(content: Content, width: int, style: Style) -> list[Line]:
    """`content` in lines of exactly `width` cells (2 at the least)."""
    width = max(width, FEWEST_CELLS)
    lines: list[Line] = []
    for hard_line in content.split("\n", allow_blank=True):
        text = hard_line.plain
        if "\t" not in text and cell_len(text) <= width:
            lines.append(_line(hard_line, width, style, "\n"))
            continue
        joint, at = "\n", 0
        for soft_line in hard_line.wrap(width):
            lines.append(_line(soft_line, width, style, joint))
            found = text.find(soft_line.plain, at)
            at = found + len(soft_line.plain) if found >= 0 else len(text)
            joint = "" if text[at : at + 1].strip() else " "
    return lines


def prefixed(lines: Iterable[Line], first: str, rest: str, style: Style) -> list[Line]:
    """`lines` behind `first`, those after the first behind `rest`."""
    prefix, others = Segment(first, style.rich_style), Segment(rest, style.rich_style)
    result: list[Line] = []
    for line in lines:
        result.append(Line((prefix, *line.segments), len(prefix.text) + line.n_skipped, line.joint))
        prefix = others
    return result


def padded(lines: Iterable[Line], n_left: int, n_right: int, style: Style) -> list[Line]:
    """`lines` with blank cells on both sides."""
    left, right = (Segment(" " * n, style.rich_style) for n in (n_left, n_right))
    return [
        Line((left, *line.segments, right), n_left + line.n_skipped, line.joint) for line in lines
    ]


def _line(content: Content, width: int, style: Style, joint: str) -> Line:
    segments = content.render_segments(style)
    n_blank = width - cell_len(content.plain)
    if n_blank > 0:
        segments.append(Segment(" " * n_blank, style.rich_style))
    return Line(segments, joint=joint)
