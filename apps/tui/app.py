"""The terminal chat as a whole: the engine's thread, the screens, the colours, the keys. The chat
itself is screens/chat.py."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import App, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.filter import LineFilter

from .capability import is_terminal_gone
from .conversation import Conversation
from .engine import Engine, EngineThread
from .keys import KEYS, keymap
from .library import Library, Outcome
from .messages import Event, Measured, ModelSwitched, ReplyEnded, ReplyFailed, Request
from .screens.bench import Bench
from .screens.chat import ChatScreen
from .screens.models import Models
from .screens.outside import run_outside
from .screens.sessions import Sessions
from .screens.settings import SettingsSheet
from .screens.sheet import Sheet
from .screens.texts import About, Help
from .settings import Settings, write_settings
from .themes import themes
from .tools import toolbox
from .widgets.plain import TerminalGuard
from .widgets.prompt import Prompt
from .widgets.status import StatusLine
from .widgets.transcript import Transcript

# New text is shown at most ten times a second, and less often where that would take more than this
# share of a core: long replies on slow machines. What is not shown is not written down either.
_SHORTEST_S, _LONGEST_S, _CPU_SHARE = 0.1, 0.8, 0.03
_PATIENCE_S = 5.0  # a screen that broke holds no key for longer
_ALONE_S = 1.0  # a chat goes on without its terminal at most
_SHEETS: dict[str, type[Sheet]] = {
    "help": Help,
    "sessions": Sessions,
    "models": Models,
    "settings": SettingsSheet,
    "bench": Bench,
    "about": About,
}


class ChatApp(App[None]):
    """A chat with a model, and what belongs to it. Closes engine and library when it ends; `crash`
    is why, if it broke. Without a `library` nothing is written to disk, without a `settings_path`
    no settings. `folder`: where files are attached from and written to."""

    TITLE = "edgellm"
    CSS_PATH = "theme.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.default, key.action, id=key.name, show=False, priority=True)
        for key in KEYS
        if key.anywhere
    ]

    def __init__(
        self,
        engine: Engine,
        *,
        greeting: str | None = None,
        library: Library | None = None,
        chat: int | None = None,
        system: str | None = None,
        settings: Settings | None = None,
        settings_path: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        self.crash: BaseException | None = None
        self.engine = engine
        self.library = Library(None) if library is None else library
        self.settings = Settings() if settings is None else settings
        self.settings_path = settings_path
        self.folder = Path.cwd() if folder is None else folder
        self.tools = toolbox(self.folder)
        self._thread = EngineThread(engine)
        self._guard = TerminalGuard()
        self._request: Request | None = None
        self.n_inputs = 0  # keys and pastes so far
        for theme in themes().values():
            self.register_theme(theme)
        self.chat = ChatScreen(self, self._first_chat(chat, system), greeting)

    def _first_chat(self, chat: int | None, system: str | None) -> Conversation:
        conversation = Conversation(self.library, chat)
        if system is not None:
            conversation.system = system
        for said in self.engine.said:  # a chat from a file
            turn = conversation.send(str(said.message.get("content", "")), said.message["role"])
            card = self.engine.card
            outcome = Outcome(
                *(said.reply, said.reply_ids, card.root, card.name),
                *(said.finish_reason, "", said.n_dropped),
            )
            conversation.end(turn.id, outcome)
        return conversation

    def on_mount(self) -> None:
        """Before anything is drawn."""
        # What has been imported stays: looking through it for garbage was a quarter of the cost of
        # drawing.
        gc.collect()
        gc.freeze()
        self._apply_settings()
        # Textual would read the end of a terminal that is gone for ever, as fast as it can.
        if sys.__stdin__ is not None and sys.__stdin__.isatty():
            fd = sys.__stdin__.fileno()
            self.set_interval(_ALONE_S, lambda: self.exit() if is_terminal_gone(fd) else None)

    def on_unmount(self) -> None:
        """The engine's thread ends before the program does."""
        self._thread.close()
        self.engine.close()
        self.library.close()

    def exit(self, *args: Any, **kwargs: Any) -> None:
        """What is written and not sent is kept."""
        if self.chat.is_mounted:
            self.chat.writing.save()
        super().exit(*args, **kwargs)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Behind everything that is drawn; see `TerminalGuard`."""
        return [*super().get_line_filters(), self._guard]

    def get_default_screen(self) -> ChatScreen:
        """What everything stands on."""
        return self.chat

    async def on_event(self, event: events.Event) -> None:
        """Counts what is typed, and lets it come in turn."""
        if isinstance(event, events.Key | events.Paste):
            self.n_inputs += 1
            if not event.is_forwarded:
                await self._wait_for_turn(event)
        await super().on_event(event)

    async def _wait_for_turn(self, event: events.Event) -> None:
        """What is typed before the chat is there waits for it. A key for the app or a screen waits
        for the letters before it, which go through the queue of the prompt: Esc is not to be before
        the word."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self.chat.is_there.wait()
                if isinstance(event, events.Key) and not event.is_printable:
                    await self.chat.prompt.catch_up()

    # --- parts of the chat --------------------------------------------------------------------

    @property
    def transcript(self) -> Transcript:
        """What was said."""
        return self.chat.transcript

    @property
    def status(self) -> StatusLine:
        """What happens."""
        return self.chat.status

    @property
    def prompt(self) -> Prompt:
        """Where one writes."""
        return self.chat.prompt

    def chat_was_deleted(self, chat: int) -> None:
        """If it is the one on the screen, a new one takes its place."""
        shown = self.chat.conversation
        if not self.busy and shown.has(chat):
            self.chat.prompt.put("")
            self.chat.conversation = Conversation(self.library)
            self.chat.show_chat(self.chat.conversation)

    # --- the engine ---------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A request is under way."""
        return self._request is not None

    def ask(self, request: Request, show: Callable[[Event], None]) -> None:
        """Ask the engine; `show` gets what it says, in batches. One request at a time."""
        self._request = request
        self._thread.submit(request)
        self.run_worker(self._follow(show), group="engine", exclusive=True)

    def stop(self) -> None:
        """End the request under way, keeping what came."""
        if self.busy:
            self._thread.stop()

    async def _follow(self, show: Callable[[Event], None]) -> None:
        pause_s, spent_s = _SHORTEST_S, time.thread_time()
        while self.busy:
            await asyncio.sleep(pause_s)
            with self.batch_update():  # one layout for all of it
                for event in self._thread.take():
                    if _is_last(event):
                        self._request = None
                    show(event)
            now_s = time.thread_time()  # of this thread: drawing included
            pause_s = min(_LONGEST_S, max(_SHORTEST_S, (now_s - spent_s) / _CPU_SHARE))
            spent_s = now_s

    # --- screens, settings, editor ------------------------------------------------------------

    def action_open(self, name: str) -> Awaitable[object] | None:
        """Over the chat, in the place of another one. A key waits until it is there: what is typed
        behind it is for the sheet."""
        return self._open(_SHEETS[name]())

    def open_sessions(self, words: str) -> None:
        """Those that have `words`."""
        self._open(Sessions(words))

    def _open(self, sheet: Sheet) -> Awaitable[object] | None:
        above = self.screen
        if isinstance(above, Sheet) and type(above) is not type(sheet):
            return self.switch_screen(sheet)
        if above is self.chat:  # no question is open
            return self.push_screen(sheet)
        return None

    def change_settings(self, **values: Any) -> None:
        """Take effect at once and are written down. InvalidArgumentError: a value that cannot be;
        FormatError: the file cannot be written."""
        self.settings = self.settings.changed(**values)
        self._apply_settings()
        self.chat.apply_settings()
        self.chat.show_keys()
        self.call_after_refresh(self.transcript.notify_style_update)
        if self.settings_path is not None:
            write_settings(self.settings, self.settings_path)

    def _apply_settings(self) -> None:
        theme = self.settings.theme
        self.theme = "ansi-dark" if theme == "terminal" else theme
        self.set_keymap(keymap(self.settings.keys))

    def edited_outside(self, text: str) -> str | None:
        """`text` as $VISUAL or $EDITOR left it; None, and a line that says why, if it did not."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        handle, name = tempfile.mkstemp(prefix="edgellm-", suffix=".md")  # 0600
        path = Path(name)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            code = run_outside(self, [*shlex.split(editor), name])
            if code == 0:
                return path.read_text(encoding="utf-8", errors="replace")
            self.status.say(f"{editor} ended with {code}; the text is as it was")
        except (OSError, ValueError, SuspendNotSupported) as error:
            self.status.say(f"{editor} did not start: {error}; $EDITOR says which to take")
        finally:
            path.unlink(missing_ok=True)
        return None

    # --- a bug --------------------------------------------------------------------------------

    def _fatal_error(self) -> None:
        """Textual would print a traceback with local variables; the caller reports `crash`."""
        self.crash = self._exception
        self._close_messages_no_wait()


def _is_last(event: Event) -> bool:
    match event:
        case ReplyEnded() | ReplyFailed() | ModelSwitched():
            return True
        case Measured():
            return event.is_last
    return False
