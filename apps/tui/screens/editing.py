"""Going back to what was said, to say it differently: which turn is in the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..attachments import without_files

if TYPE_CHECKING:
    from .chat import ChatScreen


class Editing:
    """Of one chat screen. Nothing changes before Enter, and then as a branch."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self._last: int | None = None
        self.turn: int | None = None
        self.of_reply = False

    def step(self, step: int) -> None:
        """The message before or after the one in the prompt; after the last one, none."""
        turns = [turn.id for turn in self._screen.conversation.branch if turn.role == "user"]
        at = turns.index(self.turn) if self.turn in turns else len(turns)
        at += step
        if at >= len(turns):
            self.leave()
        elif at >= 0:
            self.begin(turns[at])

    def begin(self, turn: int, *, of_reply: bool = False) -> None:
        """Put the message of `turn`, or its reply, into the prompt."""
        said = self._screen.conversation.turn(turn)
        self.turn = self._last = turn
        self.of_reply = of_reply
        self._put(said.reply if of_reply else without_files(said.message))

    def resume(self, text: str) -> None:
        """After an edit that failed."""
        self.turn = self._last
        self._put(text)

    def leave(self) -> None:
        """Nothing was changed."""
        self.end()
        self._screen.prompt.put("")

    def end(self) -> None:
        """What is in the prompt is a new message."""
        self.turn, self.of_reply = None, False
        self._screen.prompt.original = None
        self._screen.prompt.set_class(False, "-editing")
        self._screen.show_keys()

    def _put(self, text: str) -> None:
        prompt = self._screen.prompt
        prompt.put(text)
        prompt.original = text
        prompt.set_class(True, "-editing")
        self._screen.show_keys()
