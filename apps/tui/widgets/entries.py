"""What the transcript is made of: messages, notices and replies, each as lines."""

from __future__ import annotations

from typing import Protocol

from textual.content import Content
from textual.style import Style

from edgellm.sanitize import visible, visible_line

from ..thinking import Thinking
from .blocks import Painter
from .growing import GrowingMarkdown
from .lines import BLANK, Line, padded, prefixed, wrapped

_INDENT = 2  # cells at both sides of a reply


class View(Protocol):
    """What an entry needs of the transcript."""

    shows_thinking: bool
    thinking_key: str

    @property
    def text_width(self) -> int: ...
    @property
    def painter(self) -> Painter: ...
    @property
    def thinking_painter(self) -> Painter: ...
    @property
    def visual_style(self) -> Style: ...
    def get_visual_style(self, *component_classes: str, partial: bool = False) -> Style: ...


class Said:
    """A message or a notice. `shown`: how it looks where that is not what was sent; `place`: which
    branch it is in, empty for the only one."""

    def __init__(self, text: str, look: str, shown: str | None = None, place: str = "") -> None:
        self.text = text
        self.place = place
        self._shown = text if shown is None else shown
        self._look = look

    def lines(self, view: View) -> list[Line]:
        """All of it, and a blank line."""
        style = view.get_visual_style(self._look)
        width = view.text_width - 3
        text = wrapped(Content(visible(self._shown)), width, style)
        if self.place:
            text += wrapped(Content(self.place), width, view.get_visual_style("place"))
        bar = style + view.get_visual_style(f"{self._look}-bar", partial=True)
        return [*prefixed(padded(text, 1, 1, style), "▌", "▌", bar), BLANK]


class Reply:
    """A reply, its thinking above it and, when it is over, a line of figures under it."""

    def __init__(self, view: View, source: str = "", figures: str = "") -> None:
        self.source = ""
        self.figures = visible_line(figures)
        self._thinking = Thinking()
        self._n_thought = 0  # characters of it that are laid out
        self._thought = GrowingMarkdown(view.thinking_painter, self._thought_width(view))
        self._answer = GrowingMarkdown(view.painter, self._width(view))
        if source:
            self.source = source
            self._answer.feed(self._thinking.feed(source)[0] + self._thinking.end())

    def feed(self, view: View, text: str) -> tuple[int, list[Line]]:
        """More of it: the number of the first line that is another one, and all from there on."""
        self.source += text
        head_before = len(self._head(view))
        is_thinking = self._thinking.is_open
        answer, was_thinking = self._thinking.feed(text)
        if was_thinking:  # all that was taken for the answer
            self._answer = GrowingMarkdown(view.painter, self._width(view))
        first = self._answer.feed(answer)
        if was_thinking or is_thinking or self._thinking.is_open:
            return 0, self._lines_from(view, 0)
        return head_before + first, self._lines_from(view, head_before + first)

    def end(self) -> None:
        """Nothing more comes."""
        self._answer.feed(self._thinking.end())

    def lines(self, view: View) -> list[Line]:
        """All of it, and a blank line."""
        self._answer.resize(view.painter, self._width(view))
        self._thought.resize(view.thinking_painter, self._thought_width(view))
        return self._lines_from(view, 0)

    def _lines_from(self, view: View, first: int) -> list[Line]:
        head = self._head(view)
        lines = [*head[first:], *self._answer.lines[max(0, first - len(head)) :]]
        if self.figures:
            style = view.get_visual_style("figures")
            lines += wrapped(Content(self.figures), self._width(view), style)
        return [*padded(lines, _INDENT, _INDENT, view.visual_style), BLANK]

    def _head(self, view: View) -> list[Line]:
        """The thinking, or that there is some."""
        text = self._thinking.text
        if not text.strip() and not self._thinking.is_open:
            return []
        style = view.get_visual_style("thinking")
        bar = view.get_visual_style("thinking-bar")
        n_words = len(text.split())
        state = "thinking…" if self._thinking.is_open else "thought"
        mark = "▾" if view.shows_thinking else "▸"
        words = "1 word" if n_words == 1 else f"{n_words} words"
        title = f"{mark} {state} · {words} · {view.thinking_key}"
        lines = wrapped(Content(title), self._width(view), style)
        if view.shows_thinking:
            self._thought.feed(text[self._n_thought :] if self._n_thought else text.lstrip("\n"))
            self._n_thought = len(text)
            lines += prefixed(self._thought.lines, "┊ ", "┊ ", bar)
        return [*lines, BLANK]

    @staticmethod
    def _width(view: View) -> int:
        return view.text_width - 2 * _INDENT

    @staticmethod
    def _thought_width(view: View) -> int:
        return view.text_width - 2 * _INDENT - 2
