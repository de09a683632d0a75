"""Tables as lines: as wide as what is in them, and never wider than the reply."""

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
    """`rows` of equally many cells, the first of which is the head, in a grid, in lines of `width`
    cells. Rules between rows only where one of them is of several lines."""
    widths = _widths(rows, width - len(rows[0]) - 1)
    styles = [head] + [body] * (len(rows) - 1)
    laid_out = [_row(row, widths, style) for row, style in zip(rows, styles, strict=True)]
    is_tall = any(len(cells[0]) > 1 for cells in laid_out[1:])
    bar = Segment("│", ruler.rich_style)
    n_beside = width - sum(widths) - len(widths) - 1
    beside = [Segment(" " * n_beside, body.rich_style)] if n_beside > 0 else []
    lines = [_rule("┌┬┐", widths, ruler, beside)]
    for n, cells in enumerate(laid_out):
        if n == 1 or (n > 1 and is_tall):
            lines.append(_rule("├┼┤", widths, ruler, beside))
        for parts in zip(*cells, strict=True):
            segments = [bar]
            for part in parts:
                segments += [*part.segments, bar]
            lines.append(Line([*segments, *beside]))
    lines.append(_rule("└┴┘", widths, ruler, beside))
    return lines


def _row(row: Sequence[Content], widths: Sequence[int], style: Style) -> list[list[Line]]:
    """Its cells, of equally many lines."""
    cells = [
        padded(wrapped(cell, n_cells - 2, style), 1, 1, style)
        for cell, n_cells in zip(row, widths, strict=True)
    ]
    n_lines = max(map(len, cells))
    for cell, n_cells in zip(cells, widths, strict=True):
        blank = Line((Segment(" " * n_cells, style.rich_style),))
        cell += [blank] * (n_lines - len(cell))
    return cells


def _rule(corners: str, widths: Sequence[int], style: Style, beside: Sequence[Segment]) -> Line:
    text = corners[0] + corners[1].join("─" * n_cells for n_cells in widths) + corners[2]
    return Line((Segment(text, style.rich_style), *beside))


def _widths(rows: Sequence[Sequence[Content]], n_cells: int) -> list[int]:
    """What the columns would like to have; if that is more than `n_cells`, each has its longest
    word first; if that is too much too, a letter. (Not even that: wider, and cut.)"""
    columns = list(zip(*rows, strict=True))
    letter = FEWEST_CELLS + 2
    wanted = [max(letter, *(cell.cell_length + 2 for cell in column)) for column in columns]
    words = [
        max(letter, *(cell_len(word) + 2 for cell in column for word in cell.plain.split()), 0)
        for column in columns
    ]
    if sum(wanted) <= n_cells:
        return wanted
    if sum(words) <= n_cells:
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
