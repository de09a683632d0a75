"""Small questions over a screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input

from edgellm.sanitize import visible_line

from ..widgets.plain import Plain


class Question(ModalScreen[bool]):
    """Yes or no; anything but a clear yes is no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q,ctrl+c,ctrl+q", "answer(False)", show=False, priority=True),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The question and its keys."""
        with VerticalScroll(classes="dialog"):
            yield Plain(self._text)
            yield Plain("y yes · n no", classes="keys")

    def action_answer(self, yes: bool) -> None:
        """A key was pressed."""
        self.dismiss(yes)


class Line(ModalScreen[str | None]):
    """One line of text; None: the user left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c,ctrl+q", "leave", show=False, priority=True)
    ]

    def __init__(self, text: str, value: str = "") -> None:
        super().__init__()
        self._text, self._value = text, value

    def compose(self) -> ComposeResult:
        """The question, the line and its keys."""
        with VerticalScroll(classes="dialog"):
            yield Plain(self._text)
            yield Input(visible_line(self._value), compact=True)
            yield Plain("Enter takes it · Esc leaves", classes="keys")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        self.dismiss(visible_line(event.value).strip())

    def action_leave(self) -> None:
        """Esc."""
        self.dismiss(None)
