"""What was said: messages, replies and notices, in a view that follows the newest text until the
reader scrolls away, and again when they come back to the end."""

from __future__ import annotations

from typing import Literal

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll

from .markdown import InertMarkdown
from .plain import Plain

NoticeKind = Literal["note", "warning", "error"]


class UserMessage(Plain):
    """A message as it was written. `text` is what was sent."""

    def __init__(self, text: str) -> None:
        super().__init__(text, classes="user")
        self.text = text


class Reply(Vertical):
    """A reply and, when it is over, a line of figures under it."""

    def __init__(self) -> None:
        super().__init__(classes="reply")
        self.markdown = InertMarkdown()
        self.figures = Plain(classes="figures")

    def compose(self) -> ComposeResult:
        """The text, then the figures."""
        yield self.markdown
        yield self.figures


class Transcript(VerticalScroll, can_focus=False):
    """The scrolling middle of the screen. The last user message and reply are the last turn."""

    def __init__(self) -> None:
        super().__init__(id="transcript")
        self._message: UserMessage | None = None
        self._reply: Reply | None = None
        self._earlier: list[tuple[UserMessage, Reply]] = []

    def on_mount(self) -> None:
        """Follow the end."""
        self.anchor()

    @property
    def last_message(self) -> str | None:
        """The text of the last turn's message."""
        return None if self._message is None else self._message.text

    async def add_message(self, text: str) -> None:
        """Begin a turn, and show its message."""
        if self._message is not None and self._reply is not None:
            self._earlier.append((self._message, self._reply))
        self._reply = None
        self._message = UserMessage(text)
        await self.mount(self._message)
        self.anchor()

    async def begin_reply(self) -> None:
        """The reply of the last turn, in the place of one that may be there."""
        if self._reply is not None:
            await self._reply.remove()
        self._reply = Reply()
        await self.mount(self._reply)

    async def feed(self, text: str) -> None:
        """More of the reply."""
        if self._reply is not None:
            await self._reply.markdown.feed(text)

    def end_reply(self, figures: str) -> None:
        """The reply is over."""
        if self._reply is not None:
            self._reply.figures.show(figures)
            # Not by a class of the reply, for which Textual would style every block anew.
            self._reply.figures.display = True

    async def drop_last_turn(self) -> None:
        """Forget the last message and its reply."""
        for widget in (self._message, self._reply):
            if widget is not None:
                await widget.remove()
        self._message, self._reply = self._earlier.pop() if self._earlier else (None, None)

    async def notice(self, text: str, kind: NoticeKind = "note") -> None:
        """A remark of the program's own."""
        await self.mount(Plain(text, classes=f"notice -{kind}"))
