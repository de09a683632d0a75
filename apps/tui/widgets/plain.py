"""Where text enters the screen and where it leaves it.

`Plain` is the only way in for text that is not Markdown: sanitized, and never read as markup.
`TerminalGuard` stands before the terminal, behind every widget, Textual's own included: whatever
way a text took, a control character or a hyperlink does not get past it.
"""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.widgets import Static

from edgellm.sanitize import visible, visible_line

from .kept import Kept


class Plain(Kept, Static):
    """Text as it is: no markup, no links."""

    def __init__(self, text: str = "", *, id: str | None = None, classes: str | None = None):
        super().__init__(visible(text), markup=False, id=id, classes=classes)

    def show(self, text: str, *, same_size: bool = False) -> None:
        """Another text in its place. `same_size`: nothing else has to move for it."""
        self.update(visible(text), layout=not same_size)


class TerminalGuard(LineFilter):
    """Replaces what could steer a terminal in finished lines, and takes hyperlinks (OSC 8) out."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        """Textual calls this for every line of every widget."""
        return [_guarded(segment) for segment in segments]


def _guarded(segment: Segment) -> Segment:
    text, style, control = segment
    if control is None and text.isascii() and text.isprintable() and _unlinked(style):
        return segment  # nearly every segment
    if style is not None and style.link is not None:
        style = style.update_link(None)
    return Segment(visible_line(text), style)


def _unlinked(style: Style | None) -> bool:
    return style is None or style.link is None
