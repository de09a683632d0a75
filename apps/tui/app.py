"""The chat screen: keys, and what happens when. The model is behind an `Engine`; the look is in
theme.tcss, the parts are in widgets/.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.widgets.text_area import Selection

from .engine import Engine, EngineThread
from .figures import dropped, figures, live_figures
from .messages import (
    EditLast,
    Event,
    Regenerate,
    ReplyEnded,
    ReplyFailed,
    ReplyStarted,
    Request,
    Send,
    TextPiece,
)
from .remedies import remedy
from .widgets.kept import ChatScreen
from .widgets.plain import Plain, TerminalGuard
from .widgets.prompt import Prompt
from .widgets.status import StatusLine
from .widgets.transcript import Transcript

# New text is shown at most ten times a second, and less often where that would take more than this
# share of a core: long replies on slow machines.
_SHORTEST_S, _LONGEST_S, _CPU_SHARE = 0.1, 1.0, 0.03
_FIGURES_S = 0.5  # those of the reply under way change twice a second
_IDLE_KEYS = "Enter send · Ctrl+J newline · Ctrl+R again · ↑ edit · Ctrl+Q quit"
_BUSY_KEYS = "Esc stop · PgUp/PgDn read back · Ctrl+Q quit"
_EDIT_KEYS = "Enter replaces your last message · Esc leaves it as it was"


class ChatApp(App[None]):
    """One chat with one model. Closes the engine when it ends; `crash` is why, if it broke."""

    CSS_PATH = "theme.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", show=False, priority=True),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("ctrl+r", "regenerate", show=False, priority=True),
        Binding("ctrl+q", "quit", show=False, priority=True),
        Binding("pageup", "read('page_up')", show=False, priority=True),
        Binding("pagedown", "read('page_down')", show=False, priority=True),
        Binding("ctrl+home", "read('home')", show=False, priority=True),
        Binding("ctrl+end", "read('end')", show=False, priority=True),
    ]

    def __init__(self, engine: Engine, *, greeting: str | None = None) -> None:
        super().__init__()
        self.crash: BaseException | None = None
        self._engine = engine
        self._thread = EngineThread(engine)
        self._guard = TerminalGuard()
        self._greeting = greeting
        self._request: Request | None = None
        self._editing = False
        self._quitting = False  # Ctrl+C was pressed once
        self._n_tokens = 0
        self._n_prompt = 0
        self._first_token_s = self._figures_s = 0.0
        card = engine.card
        self._title = Plain(f"edgellm · {card.name} · {card.details}", id="title")
        self.transcript = Transcript()
        self.status = StatusLine(card.n_ctx)
        self.prompt = Prompt()
        self._keys = Plain(_IDLE_KEYS, id="keys")

    def compose(self) -> ComposeResult:
        """Top to bottom."""
        yield self._title
        yield self.transcript
        yield self.status
        yield self.prompt
        yield self._keys

    async def on_mount(self) -> None:
        """Ready to write."""
        # What has been imported stays: looking through it for garbage was a quarter of the cost of
        # drawing.
        gc.collect()
        gc.freeze()
        self.prompt.focus()
        self.status.say("ready")
        if self._greeting is not None:
            self.transcript.notice(self._greeting)

    def on_unmount(self) -> None:
        """The engine's thread ends before the program does."""
        self._thread.close()
        self._engine.close()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Behind everything that is drawn; see `TerminalGuard`."""
        return [*super().get_line_filters(), self._guard]

    def get_default_screen(self) -> ChatScreen:
        """What everything stands on."""
        return ChatScreen()

    @property
    def busy(self) -> bool:
        """A reply is under way."""
        return self._request is not None

    # --- keys ---------------------------------------------------------------------------------

    async def on_prompt_sent(self, event: Prompt.Sent) -> None:
        """Enter."""
        if self.busy:
            self.status.say("a reply is under way: Esc stops it")
            return
        self.prompt.put("")
        if self._editing:
            self._edit(False)
            self._ask(EditLast(event.text))
        else:
            self.transcript.add_message(event.text)
            self._ask(Send(event.text))

    def on_prompt_edit_wanted(self) -> None:
        """Up in an empty prompt."""
        last = self.transcript.last_message
        if not self.busy and last is not None:
            self.prompt.put(last)
            self._edit(True)

    def on_prompt_end_wanted(self) -> None:
        """Ctrl+D in an empty prompt."""
        self.exit()

    def on_text_area_changed(self) -> None:
        """Whoever writes does not want to quit."""
        self._quitting = False

    async def action_regenerate(self) -> None:
        """Another reply to the last message."""
        if self.busy or self.transcript.last_message is None:
            self.status.say("Ctrl+R asks for another reply once there is one")
            return
        self._ask(Regenerate())

    def action_stop(self) -> None:
        """Esc: end the reply, or leave the edit."""
        if self.busy:
            self.status.say("stopping")
            self._thread.stop()
        elif self._editing:
            self.prompt.put("")
            self._edit(False)

    def action_interrupt(self) -> None:
        """Ctrl+C: copy what is selected, else stop the reply, else quit at the second time."""
        selected = self.screen.get_selected_text() or self.prompt.selected_text
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
            self.prompt.selection = Selection.cursor(self.prompt.cursor_location)
            self.status.say("copied")
        elif self.busy:
            self.action_stop()
        elif self._quitting:
            self.exit()
        else:
            self._quitting = True
            self.status.say("Ctrl+C again quits")

    def action_read(self, where: str) -> None:
        """Move the transcript; the prompt keeps the focus."""
        move = getattr(self.transcript, f"scroll_{where}")
        move(animate=False)

    def _edit(self, editing: bool) -> None:
        self._editing = editing
        self.prompt.set_class(editing, "-editing")
        self._show_keys()

    def _show_keys(self) -> None:
        self._keys.show(_BUSY_KEYS if self.busy else _EDIT_KEYS if self._editing else _IDLE_KEYS)

    # --- a reply ------------------------------------------------------------------------------

    def _ask(self, request: Request) -> None:
        self._request = request
        self._quitting = False
        self._n_tokens = self._n_prompt = 0
        self._show_keys()
        self.status.say("reading your message")
        self._thread.submit(request)
        self.run_worker(self._follow(request), exclusive=True)

    async def _follow(self, request: Request) -> None:
        """Show what the engine says, in batches, until the reply is over."""
        pause_s, spent_s = _SHORTEST_S, time.thread_time()
        while self.busy:
            await asyncio.sleep(pause_s)
            with self.batch_update():  # one layout for all of it
                for event in self._thread.take():
                    await self._show(request, event)
            now_s = time.thread_time()  # of this thread: drawing included
            pause_s = min(_LONGEST_S, max(_SHORTEST_S, (now_s - spent_s) / _CPU_SHARE))
            spent_s = now_s

    async def _show(self, request: Request, event: Event) -> None:
        match event:
            case ReplyStarted():
                await self._show_start(request, event)
            case TextPiece():
                await self._show_text(event)
            case ReplyEnded():
                await self._show_end(event)
            case ReplyFailed():
                await self._show_failure(request, event)

    async def _show_start(self, request: Request, event: ReplyStarted) -> None:
        self._n_prompt = event.prompt_tokens
        if isinstance(request, EditLast):
            self.transcript.drop_last_turn()
            self.transcript.add_message(request.text)
        self.transcript.begin_reply()
        self.status.show_context(event.prompt_tokens)

    async def _show_text(self, event: TextPiece) -> None:
        if self._n_tokens == 0:
            self._first_token_s = time.monotonic()
        self._n_tokens += event.n_tokens
        self.transcript.feed(event.text)
        now_s = time.monotonic()
        if now_s - self._figures_s >= _FIGURES_S:
            self._figures_s = now_s
            self.status.say(live_figures(self._n_tokens, now_s - self._first_token_s))
            self.status.show_context(self._n_prompt + self._n_tokens)

    async def _show_end(self, event: ReplyEnded) -> None:
        self._over()
        self.status.show_context(event.context_tokens)
        if event.dropped_turns > 0:
            text = dropped(event).capitalize()
            text += ". What you see here is more than what the model sees."
            self.transcript.notice(text, "warning")
        if not event.kept:
            self._take_back()
            self.status.say("stopped before the first word; your message is back in the prompt")
            return
        self.transcript.end_reply(figures(event))
        self.status.say(
            "stopped; the text so far stays" if event.finish_reason == "cancelled" else "ready"
        )
        if event.finish_reason == "length":
            self.transcript.notice(self._why_cut(event), "warning")

    def _why_cut(self, event: ReplyEnded) -> str:
        n_ctx = self._engine.card.n_ctx
        if event.context_tokens + 1 >= n_ctx:
            return f"The reply was cut: the context of {n_ctx} tokens is full. " + remedy(
                "context_overflow"
            )
        return "The reply was cut at --max-tokens."

    async def _show_failure(self, request: Request, event: ReplyFailed) -> None:
        self._over()
        self.transcript.notice(f"{event.message}\n{remedy(event.code)}".strip(), "error")
        if event.kept:
            self.transcript.end_reply("ended by an error; the text so far stays")
        elif event.started or isinstance(request, Send):
            self._take_back()
        elif isinstance(request, EditLast):
            self.prompt.put(request.text)
            self._edit(True)
        self.status.say("that did not work; the reason is above")

    def _take_back(self) -> None:
        """The last turn is not part of the chat: its message goes back to the prompt."""
        text = self.transcript.last_message
        self.transcript.drop_last_turn()
        if text is not None and not self.prompt.text:
            self.prompt.put(text)

    def _over(self) -> None:
        self._request = None
        self._show_keys()

    # --- a bug --------------------------------------------------------------------------------

    def _fatal_error(self) -> None:
        """Textual would print a traceback with local variables; the caller reports `crash`."""
        self.crash = self._exception
        self._close_messages_no_wait()
