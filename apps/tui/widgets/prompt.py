"""Where the user writes: Enter sends, Ctrl+J makes a line, a paste only ever inserts."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from edgellm.sanitize import visible

from .kept import Kept

# Terminals that report them; Ctrl+J comes through everywhere.
_NEWLINE_KEYS = ("ctrl+j", "shift+enter", "alt+enter")


class Prompt(Kept, TextArea):
    """A growing text box. What is pasted becomes visible as it is, and is sent as it is seen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+d", "end_or_delete_right", show=False),
    ]

    class Sent(Message):
        """Enter was pressed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class EditWanted(Message):
        """Up was pressed with nothing written."""

    class EndWanted(Message):
        """Ctrl+D was pressed with nothing written."""

    def __init__(self) -> None:
        super().__init__(
            id="prompt",
            compact=True,
            highlight_cursor_line=False,
            placeholder="Write a message",
            tab_behavior="focus",
        )
        # It would wake the machine and draw twice a second for as long as the chat is open.
        self.cursor_blink = False

    def action_end_or_delete_right(self) -> None:
        """As in a shell."""
        if self.text:
            self.action_delete_right()
        else:
            self.post_message(self.EndWanted())

    def action_cursor_up(self, select: bool = False) -> None:
        """With nothing written: the last message again."""
        if self.text or select:
            super().action_cursor_up(select)
        else:
            self.post_message(self.EditWanted())

    def put(self, text: str) -> None:
        """`text` in the place of what is written; undo brings that back."""
        self.replace(visible(text), (0, 0), self.document.end)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        # Here and not as bindings with priority, which would overtake letters still in the queue.
        if event.key != "enter" and event.key not in _NEWLINE_KEYS:
            await super()._on_key(event)
            return
        event.prevent_default()
        event.stop()
        if event.key in _NEWLINE_KEYS:
            self._replace_via_keyboard("\n", *self.selection)
        elif self.text.strip():
            self.post_message(self.Sent(self.text))  # whoever takes the text clears the prompt

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        if result := self._replace_via_keyboard(visible(text), *self.selection):
            self.move_cursor(result.end_location)
