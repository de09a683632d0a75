"""Tables as lines: as wide as the reply, columns by what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rich.cells import cell_len
from rich.segment import Segment
from textual.content import Content
from textual.style import Style

from .lines import FEWEST_CELLS, Line, padded, wrapped


def table_lines(
    rows: Sequence[Sequence[Content]], width: int, body: Style, head: Style, ruler: Style
) -> list[Line]:
    """`rows` of equally many cells, the first of which is the head, in a grid of `width` cells."""
    n_columns = len(rows[0])
    widths = _widths(rows, width - n_columns - 1)
    bar = Segment("│", ruler.rich_style)
    lines = [_rule("┌┬┐", widths, ruler)]
    for n, row in enumerate(rows):
        if n > 0:
            lines.append(_rule("├┼┤", widths, ruler))
        style = body if n > 0 else head
        cells = [
            padded(wrapped(cell, n_cells - 2, style), 1, 1, style)
            for cell, n_cells in zip(row, widths, strict=True)
        ]
        n_lines = max(map(len, cells))
        for cell, n_cells in zip(cells, widths, strict=True):
            blank = Line((Segment(" " * n_cells, style.rich_style),))
            # The names of columns stand on the rule below them.
            at = 0 if n == 0 else len(cell)
            cell[at:at] = [blank] * (n_lines - len(cell))
        for parts in zip(*cells, strict=True):
            segments = [bar]
            for part in parts:
                segments += [*part.segments, bar]
            lines.append(Line(segments))
    lines.append(_rule("└┴┘", widths, ruler))
    return lines


def _rule(corners: str, widths: Sequence[int], style: Style) -> Line:
    text = corners[0] + corners[1].join("─" * n_cells for n_cells in widths) + corners[2]
    return Line((Segment(text, style.rich_style),))


def _widths(rows: Sequence[Sequence[Content]], n_cells: int) -> list[int]:
    """`n_cells` for the columns by what they would like to have; if that is too much, each has its
    longest word first; if that is too much too, a letter. (Not even that: wider, and cut.)"""
    columns = list(zip(*rows, strict=True))
    letter = FEWEST_CELLS + 2
    wanted = [max(letter, *(cell.cell_length + 2 for cell in column)) for column in columns]
    words = [
        max(letter, *(cell_len(word) + 2 for cell in column for word in cell.plain.split()), 0)
        for column in columns
    ]
    if sum(wanted) <= n_cells:
        least = [0] * len(columns)
    elif sum(words) <= n_cells:
        least = words
    else:
        least, wanted = [letter] * len(columns), words
    shares = [want - few for want, few in zip(wanted, least, strict=True)]
    part = max(Fraction(0), Fraction(n_cells - sum(least), sum(shares) or 1))
    widths: list[int] = []
    end = Fraction(0)
    for few, share in zip(least, shares, strict=True):
        start, end = end, end + few + share * part
        widths.append(int(end) - int(start))
    return widths
