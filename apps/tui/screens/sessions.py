"""The chats that are kept: search, resume, rename, delete."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, OptionList

from edgellm.sanitize import visible_line

from ..conversation import Conversation
from ..library import ChatInfo, Found
from .dialogs import Line, Question
from .sheet import Rows, Sheet


class Sessions(Sheet):
    """As one types, the chats that have all the words in their title or in one turn."""

    TITLE_TEXT: ClassVar[str] = "Chats"
    KEYS_TEXT: ClassVar[str] = " · Enter resume · Ctrl+R rename · Del delete"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("ctrl+r", "rename", show=False, priority=True),
        Binding("delete,ctrl+d", "delete", show=False, priority=True),
    ]

    def __init__(self, words: str = "") -> None:
        super().__init__()
        self._input = Input(visible_line(words), placeholder="Search all chats", compact=True)
        self._rows = Rows(classes="body")
        self._found: list[Found] = []

    def body(self) -> Sequence[Widget]:
        """What is searched, and what was found."""
        return self._input, self._rows

    def on_mount(self) -> None:
        """All of them at first."""
        self._input.focus()
        self._search()

    def on_input_changed(self) -> None:
        """As one types."""
        self._search()

    def on_input_submitted(self) -> None:
        """Enter."""
        self._resume()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click."""
        event.stop()
        self._resume()

    def action_move(self, step: int) -> None:
        """In the list, while the search keeps the focus."""
        if step > 0:
            self._rows.action_cursor_down()
        else:
            self._rows.action_cursor_up()

    def action_rename(self) -> None:
        """Another title."""

        async def ask() -> None:
            if (chat := self._chosen()) is not None:
                title = await self.app.push_screen_wait(
                    Line("Title (empty: the automatic one)", chat.title)
                )
                if title is not None:
                    self.app.library.rename(chat.id, title)
                    self._search()

        self.run_worker(ask())

    def action_delete(self) -> None:
        """For good, after a yes."""

        async def ask() -> None:
            chat = self._chosen()
            if chat is None:
                return
            question = f"Delete this chat for good?\n\n{chat.title}"
            if await self.app.push_screen_wait(Question(question)):
                self.app.library.delete(chat.id)
                self.app.chat_was_deleted(chat.id)
                self._search()

        self.run_worker(ask())

    def _search(self) -> None:
        words = self._input.value
        library = self.app.library
        if words.strip():
            self._found = library.search(words)
        else:
            self._found = [Found(chat, None, "") for chat in library.chats()]
        self._rows.show_rows([_row(found) for found in self._found])
        kept = "" if library.is_kept else "; they are gone when this program ends"
        n = len(self._found)
        self.say(f"{n} chat{'' if n == 1 else 's'}{kept}")

    def _chosen(self) -> ChatInfo | None:
        at = self._rows.highlighted
        return None if at is None or at >= len(self._found) else self._found[at].chat

    def _resume(self) -> None:
        at = self._rows.highlighted
        if self.app.busy:
            self.say("a reply is under way: Esc, and Esc again stops it")
        elif at is not None and at < len(self._found):
            found = self._found[at]
            chat = Conversation(self.app.library, found.chat.id)
            if found.turn is not None and found.turn not in [turn.id for turn in chat.branch]:
                chat.show(found.turn)
            self.dismiss(None)
            self.app.chat.show_chat(chat)


def _row(found: Found) -> tuple[str, ...]:
    chat = found.chat
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(chat.updated_ms / 1000))
    turns = "1 turn" if chat.n_turns == 1 else f"{chat.n_turns} turns"
    draft = " · a draft" if chat.draft else ""
    title = chat.title or (chat.draft.strip().splitlines() or ["(empty)"])[0]
    return title, f"{when} · {turns}{draft}", found.excerpt
