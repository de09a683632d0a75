"""What is written and not sent: kept as a draft, weighed where it names files, completed by Tab;
and what was written before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgellm.errors import EdgeError

from .. import attachments, commands
from .later import later

if TYPE_CHECKING:
    from .chat import ChatScreen

_DRAFT_S = 0.4  # after a change it is written down


class Writing:
    """The prompt of one chat screen."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self._is_due = False  # what was written will be written down
        self._estimated = ""
        self._history: list[str] = []
        self._at = 0  # in it
        self._typed = ""  # what was there before

    def load_history(self) -> None:
        """Of all chats."""
        self._history = self._screen.library.messages()
        self._at = len(self._history)

    def sent(self, message: str) -> None:
        """The latest one."""
        self._history = [*(one for one in self._history if one != message), message]
        self._at = len(self._history)

    def step(self, step: int) -> None:
        """To what was sent before or after."""
        at = self._at + step
        if not 0 <= at <= len(self._history) or self._screen.editing.turn is not None:
            return
        if self._at == len(self._history):
            self._typed = self._screen.prompt.text
        self._at = at
        text = self._history[at] if at < len(self._history) else self._typed
        self._screen.prompt.put(attachments.without_files(text))

    def changed(self) -> None:
        """Whatever is typed is safe within the second."""
        if not self._is_due:
            self._is_due = True
            later(self._screen, _DRAFT_S, self._wrote)

    def save(self) -> None:
        """As a draft, unless it is an edit that was not begun."""
        screen = self._screen
        text = screen.prompt.text
        if screen.editing.turn is not None and text == screen.prompt.original:
            return
        if text or screen.conversation.info:
            try:
                screen.library.write_draft(screen.conversation.id, text)
            except EdgeError as error:
                screen.status.say(str(error))

    def completions(self, word: str) -> list[str]:
        """What a word that begins with / or @ may become."""
        if word.startswith("/"):
            return ["/" + name for name in commands.completions(word[1:])]
        return ["@" + path for path in attachments.completions(word[1:], self._screen.owner.folder)]

    def _wrote(self) -> None:
        self._is_due = False
        self.save()
        text = self._screen.prompt.text
        if "@" in text or self._estimated:
            self._screen.run_worker(self._estimate(text), group="estimate", exclusive=True)

    async def _estimate(self, text: str) -> None:
        """Tokens of the files in it, counted beside the screen."""
        owner = self._screen.owner
        said = await asyncio.to_thread(attachments.estimate, text, owner.folder, owner.engine.count)
        if said or self._estimated:
            self._screen.status.say(f"attached: {said}" if said else "ready")
        self._estimated = said
