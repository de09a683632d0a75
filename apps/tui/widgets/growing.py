"""Markdown that grows: what is finished is read and laid out once, only its end again and again."""

from __future__ import annotations

import re

from markdown_it.tree import SyntaxTreeNode

from edgellm.sanitize import visible

from .blocks import Painter
from .inert import top_blocks
from .lines import BLANK, Line

_LISTS = ("bullet_list", "ordered_list")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")


class GrowingMarkdown:
    """The lines of a text that comes in pieces, `width` cells wide.

    The last block is open: the next piece may change it. Of a block of code that is not closed yet
    only the last line is; the fence that opens it is kept, so that the rest of it is read as code.
    """

    def __init__(self, painter: Painter, width: int) -> None:
        self.lines: list[Line] = []
        self.source = ""
        self._painter = painter
        self._width = width
        self._n_closed = 0  # lines
        self._open_at = 0  # in the source
        self._fence = ""

    def feed(self, text: str) -> int:
        """Append a piece, wherever it was cut. The number of the first line that is another one."""
        self.source += visible(text)
        return self._lay_out()

    def resize(self, painter: Painter, width: int) -> None:
        """All of it anew."""
        self._painter, self._width = painter, width
        self.lines.clear()
        self._n_closed = self._open_at = 0
        self._fence = ""
        self._lay_out()

    def _lay_out(self) -> int:
        """From the open block on."""
        source = self._fence + self.source[self._open_at :]
        blocks = top_blocks(source)
        n_before = self._n_closed
        lines: list[Line] = []
        for block in blocks[:-1]:
            lines += self._paint(block, n_before + len(lines))
            self._fence = ""
        self._n_closed += len(lines)
        if blocks:
            lines += self._lay_out_open(blocks[-1], source, n_before + len(lines))
        return self._replace(n_before, lines)

    def _lay_out_open(self, block: SyntaxTreeNode, source: str, at: int) -> list[Line]:
        start, end = block.map or (0, 0)
        rows = source.split("\n")
        if start > 0:
            self._fence = ""
        n_final = _n_final_rows(block, rows[start:end])
        if n_final == 0:
            self._open_at = len(self.source) - len("\n".join(rows[start:]))
            self._open_at += len(self._fence) if start == 0 else 0
            return self._paint(block, at)
        codes = block.content.split("\n")
        final = self._margin(block, at)
        final += self._painter.code("\n".join(codes[:n_final]), self._width)
        self._n_closed += len(final)
        self._fence = rows[start] + "\n"
        self._open_at = len(self.source) - len("\n".join(rows[start + 1 + n_final :]))
        rest = "\n".join(codes[n_final:]).rstrip()
        return final + (self._painter.code(rest, self._width) if rest else [])

    def _paint(self, block: SyntaxTreeNode, at: int) -> list[Line]:
        if self._fence and not block.content.rstrip():
            return []  # what came after the last line of code was its end
        return self._margin(block, at) + self._painter.block(block, self._width)

    def _margin(self, block: SyntaxTreeNode, at: int) -> list[Line]:
        return [] if at == 0 or self._fence or block.type in _LISTS else [BLANK]

    def _replace(self, start: int, lines: list[Line]) -> int:
        """`lines` from number `start` on, keeping those that are as they were."""
        first = start
        for new, old in zip(lines, self.lines[start:], strict=False):
            if [*new.segments] != [*old.segments]:
                break
            first += 1
        self.lines[first:] = lines[first - start :]
        return first


def _n_final_rows(block: SyntaxTreeNode, rows: list[str]) -> int:
    """How many rows of code of an open fence stay as they are: all but the last, and but blank
    ones before it, which are left out should the fence end there."""
    if block.type != "fence":
        return 0
    closing = _FENCE.fullmatch(rows[-1]) if len(rows) > 1 else None
    if closing and closing.group(1).startswith(block.markup):
        return 0
    n_rows = len(rows) - 2
    while n_rows > 0 and not rows[n_rows].strip():
        n_rows -= 1
    return max(0, n_rows)
