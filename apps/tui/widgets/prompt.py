"""Where the user writes: Enter sends, Ctrl+J makes a line, a paste only ever inserts. Keys do what
they do one after the other, however fast they are typed."""

from __future__ import annotations

import asyncio
from os.path import commonprefix
from typing import ClassVar, Protocol

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import TextArea

from edgellm.sanitize import visible

from .kept import Kept
from .vim import Vim

# Terminals that report them; Ctrl+J comes through everywhere.
_NEWLINE_KEYS = ("ctrl+j", "shift+enter", "alt+enter")


class Writer(Protocol):
    """Whom the prompt belongs to. It is called, and not told by messages: those stand behind the
    letters that are in the queue already, which would be taken for a part of what was sent, and be
    wiped with it."""

    def send(self, text: str) -> None:
        """Enter was pressed. Whoever takes the text clears the prompt."""

    def edit_other(self, step: int) -> None:
        """Up was pressed with nothing written, or Up or Down in a message that is as it was sent:
        the one before (-1) or after (1)."""

    def completions(self, word: str) -> list[str]:
        """Tab: what a word that begins with / or @ may become."""

    def show_choices(self, names: list[str]) -> None:
        """What Tab could mean."""

    def leave(self) -> None:
        """Ctrl+D was pressed with nothing written."""


class Prompt(Kept, TextArea):
    """A growing text box. What is pasted becomes visible as it is, and is sent as it is seen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+d", "end_or_delete_right", show=False),
    ]

    def __init__(self, writer: Writer) -> None:
        super().__init__(
            id="prompt",
            compact=True,
            highlight_cursor_line=False,
            placeholder="Write a message",
            tab_behavior="focus",
        )
        self.original: str | None = None  # of an edit
        self.vim: Vim | None = None
        self._writer = writer
        # It would wake the machine and draw twice a second for as long as the chat is open.
        self.cursor_blink = False

    def action_end_or_delete_right(self) -> None:
        """As in a shell."""
        if self.text:
            self.action_delete_right()
        else:
            self._writer.leave()

    async def catch_up(self) -> None:
        """Until all keys and pastes so far have done what they do."""
        done = asyncio.Event()
        if self.is_running and self.call_later(done.set):
            await done.wait()

    def action_cursor_up(self, select: bool = False) -> None:
        """With nothing written, or an edit not begun: the message before."""
        if select or (self.text and not self._is_untouched(self.cursor_at_first_line)):
            super().action_cursor_up(select)
        else:
            self._writer.edit_other(-1)

    def action_cursor_down(self, select: bool = False) -> None:
        """In an edit not begun: the message after."""
        if not select and self._is_untouched(self.cursor_at_last_line):
            self._writer.edit_other(1)
        else:
            super().action_cursor_down(select)

    def _is_untouched(self, at_edge: bool) -> bool:
        return at_edge and self.original is not None and self.text == visible(self.original)

    def put(self, text: str) -> None:
        """`text` in the place of what is written; undo brings that back."""
        self.replace(visible(text), (0, 0), self.document.end)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        # Here and not as bindings with priority, which would overtake letters still in the queue.
        if event.key == "tab" and self._complete():
            event.prevent_default()
            event.stop()
            return
        if self.vim and self.vim.is_normal and event.is_printable and event.character:
            event.prevent_default()
            event.stop()
            self.vim.key(event.character)
            return
        if event.key != "enter" and event.key not in _NEWLINE_KEYS:
            # At once, and not after it went through the widgets above: letters would overtake it.
            bound = self._bindings.key_to_bindings.get(event.key)
            if bound and not event.is_printable:
                event.prevent_default()
                event.stop()
                await self.run_action(bound[0].action)
            else:
                await super()._on_key(event)
            return
        event.prevent_default()
        event.stop()
        if event.key in _NEWLINE_KEYS:
            self._replace_via_keyboard("\n", *self.selection)
        elif self.text.strip():
            self._writer.send(self.text)

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        if result := self._replace_via_keyboard(visible(text), *self.selection):
            self.move_cursor(result.end_location)

    def _complete(self) -> bool:
        """The word before the cursor, as far as it is clear; whether Tab was for that."""
        row, column = self.cursor_location
        line = self.document.get_line(row)[:column]
        word = line[line.rfind(" ") + 1 :]
        if not word.startswith(("@", "/")):
            return bool(self.text)
        is_command = word.startswith("/") and row == 0 and line == word
        names = self._writer.completions(word) if is_command or word.startswith("@") else []
        if not names:
            return True
        done = commonprefix(names)  # noqa: RUF071 characters are what is meant
        is_folder = done.endswith("/")
        end = " " if len(names) == 1 and not is_folder else ""
        self.replace(visible(done) + end, (row, column - len(word)), (row, column))
        if len(names) > 1:
            self._writer.show_choices(names)
        return True
