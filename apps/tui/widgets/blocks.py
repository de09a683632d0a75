"""Blocks of Markdown as finished lines: what each kind looks like. Colours come from theme.tcss."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from textual.content import Content, Span
from textual.style import Style

from .lines import Line, padded, prefixed, wrapped
from .tables import table_lines

_BULLETS = "•▪‣⭑◦"
_INLINE = {"em_open": "em", "strong_open": "strong", "s_open": "s"}
_SPACES = re.compile(r"\s+")


class Painter:
    """Draws blocks with `styles`, which has those of `STYLES` by name."""

    # Complete, and what is laid over another.
    STYLES = ("text", "quote", "code")
    OVERLAYS = (
        *("em", "strong", "s", "code-inline", "mark", "quote-bar", "rule"),
        *("table-line", "table-head", "h1", "h2", "h3", "h4", "h5", "h6"),
    )

    def __init__(self, styles: Mapping[str, Style]) -> None:
        self._styles = styles

    def with_text(self, style: Style) -> Painter:
        """The same, with ordinary text in `style`."""
        return Painter({**self._styles, "text": style})

    def block(self, node: SyntaxTreeNode, width: int) -> list[Line]:
        """A block of the top level in `width` cells."""
        return self._block(node, width, self._styles["text"], 0)

    def code(self, code: str, width: int) -> list[Line]:
        """One colour: more would run Pygments' regular expressions over whatever a model writes."""
        style = self._styles["code"]
        return padded(wrapped(Content(code), width - 2, style), 1, 1, style)

    def _blocks(
        self, nodes: Sequence[SyntaxTreeNode], width: int, base: Style, n_lists: int
    ) -> list[Line]:
        return [line for node in nodes for line in self._block(node, width, base, n_lists)]

    def _block(self, node: SyntaxTreeNode, width: int, base: Style, n_lists: int) -> list[Line]:
        match node.type:
            case "paragraph":
                return wrapped(self._inline(node), width, base)
            case "heading":
                return wrapped(self._inline(node), width, base + self._styles[node.tag])
            case "fence" | "code_block":
                return self.code(node.content.rstrip(), width)
            case "bullet_list" | "ordered_list":
                return self._list(node, width, base, n_lists)
            case "blockquote":
                style = self._styles["quote"]
                lines = padded(self._blocks(node.children, width - 3, style, n_lists), 1, 1, style)
                return prefixed(lines, "▌", "▌", style + self._styles["quote-bar"])
            case "table":
                return self._table(node, width, base)
            case "hr":
                return wrapped(Content("─" * width), width, base + self._styles["rule"])
        return wrapped(Content(node.content), width, base)  # as it is written, whatever it may be

    def _list(self, node: SyntaxTreeNode, width: int, base: Style, n_lists: int) -> list[Line]:
        ordered = node.type == "ordered_list"
        marks = [
            f" {item.info}. " if ordered else f" {_BULLETS[n_lists % len(_BULLETS)]} "
            for item in node.children
        ]
        n_cells = max(map(len, marks))
        style = base + self._styles["mark"]
        lines: list[Line] = []
        for mark, item in zip(marks, node.children, strict=True):
            inner = self._blocks(item.children, width - n_cells, base, n_lists + (not ordered))
            inner = inner or wrapped(Content(), width - n_cells, base)
            lines += prefixed(inner, mark.rjust(n_cells), " " * n_cells, style)
        return lines

    def _table(self, node: SyntaxTreeNode, width: int, base: Style) -> list[Line]:
        rows = [
            [self._inline(cell) for cell in row.children]
            for part in node.children
            for row in part.children
        ]
        head, line = (base + self._styles[name] for name in ("table-head", "table-line"))
        return table_lines(rows, width, base, head, line)

    def _inline(self, node: SyntaxTreeNode) -> Content:
        """The text of a paragraph, a heading or a cell."""
        writer = _Writer(self._styles.__getitem__)
        for child in node.children:
            for token in (child.token.children if child.token else None) or ():
                writer.write(token)
        return writer.content()


class _Writer:
    """Puts the text of inline tokens together, with styles."""

    def __init__(self, look_up: Callable[[str], Style]) -> None:
        self._look_up = look_up
        self._texts: list[str] = []
        self._spans: list[Span] = []
        self._open: list[tuple[str, int]] = []
        self._length = 0

    def write(self, token: Token) -> None:
        """The next token."""
        if token.type in _INLINE:
            self._open.append((_INLINE[token.type], self._length))
        elif token.nesting < 0:
            name, start = self._open.pop()
            self._spans.append(Span(start, self._length, self._look_up(name)))
        elif token.type == "code_inline":
            start = self._length
            self._add(token.content)
            self._spans.append(Span(start, self._length, self._look_up("code-inline")))
        elif token.type in ("softbreak", "hardbreak"):
            self._add("\n")  # models mean their line breaks: verse, addresses, steps
        else:
            self._add(_SPACES.sub(" ", token.content))

    def content(self) -> Content:
        """All that was written."""
        return Content("".join(self._texts), self._spans)

    def _add(self, text: str) -> None:
        self._texts.append(text)
        self._length += len(text)
