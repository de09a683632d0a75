"""A turn on the screen, from its message to the end of the reply: what is written down, what is
shown, and what happens when it fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgellm.errors import EdgeError

from ..attachments import folded, without_files
from ..figures import dropped, figures, live_figures
from ..library import Outcome, Turn
from ..messages import Call, Event, ReplyEnded, ReplyFailed, ReplyStarted, TextPiece
from ..remedies import remedy
from ..widgets.transcript import PastTurn

if TYPE_CHECKING:
    from .chat import ChatScreen

_FIGURES_S = 0.5  # those of the reply under way change twice a second
_SAVED_S = 0.3  # the reply so far is written down when as much time has passed


class Turns:
    """Of one chat screen. One reply at a time."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self._turn: Turn | None = None
        self._before: int | None = None  # what was looked at, for a turn that comes to nothing
        self._is_edit = self._continues = False
        self._text = ""
        self._n_tokens = self._n_prompt = 0
        self._first_token_s = self._figures_s = self._saved_s = 0.0

    # --- what is asked ------------------------------------------------------------------------

    def send(self, message: str, role: str = "user") -> None:
        """At the end of the branch."""
        self._begin(lambda: self._screen.conversation.send(message, role))

    def edit(self, turn: int, message: str) -> None:
        """Instead of a message that was sent."""
        self._begin(lambda: self._screen.conversation.edit(turn, message), is_edit=True)

    def again(self) -> None:
        """Another reply to the last message."""
        head = self._screen.conversation.head
        if head is not None:
            self._begin(lambda: self._screen.conversation.again(head.id))

    def go_on(self) -> None:
        """With the last reply."""
        head = self._screen.conversation.head
        if head is not None and head.reply:
            self._begin(lambda: head, continues=True)

    def _begin(
        self, make: Callable[[], Turn], *, is_edit: bool = False, continues: bool = False
    ) -> None:
        screen = self._screen
        chat = screen.conversation
        self._before = None if chat.head is None else chat.head.id
        self._is_edit, self._continues = is_edit, continues
        try:
            self._turn = turn = make()
            tools = screen.tool_definitions()
            ask = chat.ask(turn.id, screen.app_card.root, continues=continues, tools=tools)
        except EdgeError as error:  # the disk is full: nothing was sent
            screen.transcript.notice(f"{error}\n{remedy(error.code)}".strip(), "error")
            return
        self._text = turn.reply if continues else ""
        self._n_tokens = self._n_prompt = 0
        self._saved_s = time.monotonic()
        if continues:
            screen.transcript.resume_reply()
        else:
            self.show_branch()
        screen.status.say("reading your message")
        screen.ask(ask, self.show)
        screen.show_keys()

    def show_branch(self) -> None:
        """All of the chat anew."""
        chat = self._screen.conversation
        past = []
        for turn in chat.branch:
            at, n = chat.place(turn.id)
            place = f"◂ branch {at} of {n} ▸" if n > 1 else ""
            shown = folded(turn.message)
            if turn.role != "user":
                shown = f"tool result\n{shown}"
            past.append(PastTurn(turn.message, shown, turn.reply, turn.figures, place))
        self._screen.transcript.show_past(past)

    # --- what is answered ---------------------------------------------------------------------

    def show(self, event: Event) -> None:
        """The next thing that the engine says."""
        match event:
            case ReplyStarted():
                self._n_prompt = event.prompt_tokens
                if not self._continues:
                    self._screen.transcript.begin_reply()
                self._screen.status.show_context(event.prompt_tokens)
            case TextPiece():
                self._show_text(event)
            case ReplyEnded():
                self._show_end(event)
            case ReplyFailed():
                self._show_failure(event)

    def _show_text(self, event: TextPiece) -> None:
        now_s = time.monotonic()
        if self._n_tokens == 0:
            self._first_token_s = now_s
        self._n_tokens += event.n_tokens
        self._text += event.text
        self._screen.transcript.feed(event.text)
        if now_s - self._saved_s >= _SAVED_S and self._turn is not None:
            self._saved_s = now_s
            self._screen.library.write_partial(self._turn.id, self._text)
        if now_s - self._figures_s >= _FIGURES_S:
            self._figures_s = now_s
            status = self._screen.status
            status.say(live_figures(self._n_tokens, now_s - self._first_token_s))
            status.show_context(self._n_prompt + self._n_tokens)

    def _show_end(self, event: ReplyEnded) -> None:
        screen = self._screen
        screen.status.show_context(event.context_tokens)
        if event.dropped_turns > 0:
            text = dropped(event).capitalize()
            text += ". What you see here is more than what the model sees."
            screen.transcript.notice(text, "warning")
        if not event.kept:
            self._take_back()
            screen.status.say("stopped before the first word; your message is back in the prompt")
            self._over()
            return
        self._keep(event)
        screen.transcript.end_reply(figures(event))
        is_stopped = event.finish_reason == "cancelled"
        screen.status.say("stopped; the text so far stays" if is_stopped else "ready")
        if event.finish_reason == "length":
            screen.transcript.notice(self._why_cut(event), "warning")
        self._over(event.calls)

    def _keep(self, event: ReplyEnded) -> None:
        said = event.exchange
        if self._turn is None or said is None:
            return
        card = self._screen.app_card
        outcome = Outcome(
            reply=said.reply,
            reply_ids=said.reply_ids,
            root=card.root,
            model=card.name,
            finish=event.finish_reason,
            figures=figures(event),
            n_dropped=said.n_dropped,
        )
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        assert self._turn is not None
        try:
            self._screen.conversation.end(self._turn.id, outcome)
        except EdgeError as error:
            self._screen.transcript.notice(str(error), "error")

    def _why_cut(self, event: ReplyEnded) -> str:
        n_ctx = self._screen.app_card.n_ctx
        if event.context_tokens + 1 >= n_ctx:
            return f"The reply was cut: the context of {n_ctx} tokens is full. " + remedy(
                "context_overflow"
            )
        return "The reply was cut at --max-tokens. /continue goes on with it."

    def _show_failure(self, event: ReplyFailed) -> None:
        screen = self._screen
        if event.kept and self._turn is not None:
            line = "ended by an error; the text so far stays"
            card = screen.app_card
            self._end(Outcome(self._text, None, "", card.name, "cancelled", line, 0))
            screen.transcript.end_reply(line)
        else:
            self._take_back()
        screen.transcript.notice(f"{event.message}\n{remedy(event.code)}".strip(), "error")
        screen.status.say("that did not work; the reason is above")
        self._over()

    def _take_back(self) -> None:
        """The turn is not part of the chat: its message goes back to the prompt, and is safe there
        before the turn is gone."""
        turn, screen = self._turn, self._screen
        if turn is None or self._continues:
            return
        chat = screen.conversation
        previous = None if self._before is None else chat.turn(self._before)
        is_again = previous is not None and not self._is_edit and previous.parent == turn.parent
        if not is_again and turn.role == "user":
            # What was typed meanwhile stays behind it.
            written = "\n".join(filter(None, (without_files(turn.message), screen.prompt.text)))
            screen.prompt.put(written)
            screen.writing.save()
            if self._is_edit:
                screen.editing.resume(written)
        chat.drop(turn.id, self._before)
        self.show_branch()

    def _over(self, calls: tuple[Call, ...] = ()) -> None:
        self._turn = None
        self._screen.show_keys()
        if calls:
            self._screen.run_worker(self._screen.approve(calls), exclusive=False)
