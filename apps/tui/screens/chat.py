"""The chat screen: keys, and what happens when. The look is in theme.tcss, the parts are in
widgets/, a turn is turns.py, commands are slash.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets.text_area import Selection

from edgellm.errors import EdgeError

from .. import attachments, commands
from ..conversation import Conversation
from ..export import code_blocks
from ..keys import KEYS, keymap, shown
from ..library import Library
from ..messages import Call, Event, ModelCard, ModelSwitched, ReplyFailed, Request, SwitchModel
from ..thinking import answer_of
from ..tools import described, run
from ..widgets.kept import KeptScreen
from ..widgets.plain import Plain
from ..widgets.prompt import Prompt
from ..widgets.status import StatusLine
from ..widgets.transcript import Transcript
from ..widgets.vim import Vim
from .dialogs import Question
from .editing import Editing
from .later import later
from .slash import SlashCommands
from .turns import Turns
from .writing import Writing

if TYPE_CHECKING:
    from ..app import ChatApp

_BUSY_KEYS = "Esc stop · PgUp/PgDn read back · Ctrl+Q quit"
_EDIT_KEYS = "Enter: a new branch from here · ↑ earlier · {reply} the reply · Esc leaves it"
_REPLY_KEYS = "Enter: the reply is yours, as a branch · /continue goes on with it · Esc"
_QUIET_S = 0.3  # before another program gets what is typed
_MAX_COPIED = 100_000  # characters; terminals take no more in one piece


class ChatScreen(KeptScreen):
    """One chat with one model."""

    app: ChatApp
    AUTO_FOCUS = "#prompt"  # from the first moment: some type before anything is drawn
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.default, key.action, id=key.name, show=False, priority=True)
        for key in KEYS
        if not key.anywhere
    ]

    def __init__(self, app: ChatApp, conversation: Conversation, greeting: str | None) -> None:
        super().__init__()
        self._owner = app
        self.conversation = conversation
        self._greeting = greeting
        self.transcript = Transcript()
        self.status = StatusLine(self.app_card.n_ctx)
        self.prompt = Prompt(self)
        self.editing = Editing(self)
        self.turns = Turns(self)
        self.writing = Writing(self)
        self._slash = SlashCommands(self)
        self._title = Plain(id="title")
        self._keys = Plain(id="keys")
        self._quitting = False  # Ctrl+C was pressed once
        self.is_there = asyncio.Event()

    # --- parts --------------------------------------------------------------------------------

    @property
    def owner(self) -> ChatApp:
        """The app; also before this is mounted."""
        return self._owner

    @property
    def app_card(self) -> ModelCard:
        """The model."""
        return self._owner.engine.card

    @property
    def library(self) -> Library:
        """Where it is written down."""
        return self._owner.library

    def compose(self) -> ComposeResult:
        """Top to bottom."""
        yield self._title
        yield self.transcript
        yield self.status
        yield self.prompt
        yield self._keys

    def on_mount(self) -> None:
        """Ready to write."""
        self.apply_settings()
        self.show_chat(self.conversation)
        if self._greeting is not None:
            self.transcript.notice(self._greeting)
        if self.conversation.info is None and (draft := self.library.take_draft()):
            self.prompt.put(draft)
            self.status.say("what you wrote last and did not send")
        self.is_there.set()

    def apply_settings(self) -> None:
        """Those of the app."""
        settings = self._owner.settings
        self.prompt.vim = Vim(self.prompt) if settings.vim else None
        thinking = shown(keymap(settings.keys)["thinking"])
        self.transcript.thinking_key = thinking
        self.transcript.show_thinking(settings.thinking)

    def show_chat(self, conversation: Conversation) -> None:
        """Another chat in the place of this one, which keeps its draft."""
        if conversation is not self.conversation:
            self.writing.save()
            self.conversation = conversation
            self.editing.end()
        self.writing.load_history()
        self.turns.show_branch()
        info = conversation.info
        self.prompt.put(info.draft if info else "")
        self.show_title()
        self.show_keys()
        self.status.show_context(0)
        self.status.say("ready")

    def show_title(self) -> None:
        """Of the model and the chat."""
        card, info = self.app_card, self.conversation.info
        named = f" · {info.title}" if info and info.title else ""
        self._title.show(f"edgellm · {card.name} · {card.details}{named}")
        self.status.set_limit(card.n_ctx)

    def show_keys(self) -> None:
        """What they do now."""
        if self._owner.busy:
            text = _BUSY_KEYS
        elif self.editing.turn is not None:
            keys = shown(keymap(self._owner.settings.keys)["edit_reply"])
            text = _REPLY_KEYS if self.editing.of_reply else _EDIT_KEYS.format(reply=keys)
        else:
            text = "Enter send · Ctrl+J newline · ↑ edit · Ctrl+R again · F1 help · F2 chats"
        self._keys.show(text, same_size=True)

    def ask(self, request: Request, show: Callable[[Event], None]) -> None:
        """See `ChatApp.ask()`."""
        self._quitting = False
        self._owner.ask(request, show)

    def tool_definitions(self) -> tuple[Mapping[str, Any], ...]:
        """What the model may ask for; nothing unless the user turned it on."""
        tools = self._owner.tools if self._owner.settings.tools else {}
        return tuple(tool.definition for tool in tools.values())

    # --- what the prompt asks for ---------------------------------------------------------------

    def send(self, text: str) -> None:
        """Enter."""
        try:
            self._send(text)
        except EdgeError as error:
            self.transcript.notice(str(error), "error")
            self.status.say("that did not work; the reason is above")

    def _send(self, text: str) -> None:
        parsed = None if self.editing.turn is not None else commands.parse(text)
        if self._owner.busy and (parsed is None or parsed[0].name not in ("help", "about", "quit")):
            self.status.say("a reply is under way: Esc stops it")
            return
        if parsed is not None:
            self.prompt.put("")
            self._slash.run(*parsed)
            return
        turn, of_reply = self.editing.turn, self.editing.of_reply
        if of_reply and turn is not None:
            self.conversation.rewrite(turn, text)
            self._leave_prompt()
            self.turns.show_branch()
            return
        text = text[1:] if turn is None and text.startswith("//") else text
        message = attachments.with_files(text, self._owner.folder)
        self.writing.sent(message)
        self._leave_prompt()
        if turn is not None:
            self.turns.edit(turn, message)
        else:
            self.turns.send(message)
        self.show_title()

    def _leave_prompt(self) -> None:
        self.editing.end()
        self.prompt.put("")

    def edit_other(self, step: int) -> None:
        """Up in an empty prompt, and on."""
        if not self._owner.busy:
            self.editing.step(step)

    def completions(self, word: str) -> list[str]:
        """Tab."""
        return self.writing.completions(word)

    def show_choices(self, names: list[str]) -> None:
        """Tab, where there are several."""
        self.status.say("  ".join(names[:40]))

    def leave(self) -> None:
        """Ctrl+D in an empty prompt."""
        self._owner.exit()

    def on_text_area_changed(self) -> None:
        """Whoever writes does not want to quit, and does not want to lose it."""
        self._quitting = False
        self.writing.changed()

    # --- keys ---------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where a key means nothing here, it keeps what it means in a text."""
        if action == "edit_reply":
            return self.editing.turn is not None and not self._owner.busy
        return super().check_action(action, parameters)

    def action_regenerate(self) -> None:
        """Another reply to the last message."""
        if self._owner.busy or self.conversation.head is None:
            self.status.say("Ctrl+R asks for another reply once there is one")
            return
        self.turns.again()

    def action_continue_reply(self) -> None:
        """More of the last reply."""
        head = self.conversation.head
        if self._owner.busy or head is None or not head.reply:
            self.status.say("there is no reply to go on with")
            return
        self.turns.go_on()

    def action_edit_reply(self) -> None:
        """The reply instead of the message, and back."""
        if self.editing.turn is not None:
            self.editing.begin(self.editing.turn, of_reply=not self.editing.of_reply)

    def action_branch(self, step: int) -> None:
        """Beside the turn in the prompt, else the last one that has branches."""
        chat = self.conversation
        many = [turn.id for turn in chat.branch if chat.place(turn.id)[1] > 1]
        turn = self.editing.turn if self.editing.turn in many else many[-1] if many else None
        if self._owner.busy or turn is None:
            self.status.say("no branches here: Ctrl+R or an edit makes one")
        elif chat.choose(turn, step):
            self.editing.end()
            self.turns.show_branch()
            at, n = chat.place(turn)
            self.status.say(f"branch {at + step} of {n}")
        else:
            self.status.say("no more branches on this side")

    def action_history(self, step: int) -> None:
        """What was sent before."""
        self.writing.step(step)

    def action_copy_reply(self) -> None:
        """The answer, without thinking."""
        head = self.conversation.head
        self.copy(answer_of(head.reply) if head else "", "the reply")

    def action_copy_code(self, number: int | None = None) -> None:
        """A block of code of the last reply, counted from 1; the last one."""
        head = self.conversation.head
        blocks = code_blocks(answer_of(head.reply)) if head else []
        at = len(blocks) if number is None else number
        if not 1 <= at <= len(blocks):
            self.status.say(f"the reply has {len(blocks)} blocks of code")
            return
        self.copy(blocks[at - 1], f"block {at} of {len(blocks)}")

    def copy(self, text: str, what: str) -> None:
        """To the clipboard of the terminal, over ssh too."""
        if not text:
            self.status.say("there is nothing to copy")
        elif len(text) > _MAX_COPIED:
            self.status.say(f"{len(text):,} characters are too many for a terminal; use /export")
        else:
            self._owner.copy_to_clipboard(text)
            self.status.say(f"copied {what}: {len(text):,} characters")

    def action_thinking(self) -> None:
        """Show or hide it."""
        self.transcript.show_thinking(not self.transcript.shows_thinking)

    def action_editor(self) -> None:
        """Write in another program; not if more is typed at once: it would go to that program. A
        paste that ends itself in its middle types the rest."""
        n_before = self._owner.n_inputs

        def open_if_quiet() -> None:
            if self._owner.n_inputs == n_before:
                text = self._owner.edited_outside(self.prompt.text)
                if text is not None:
                    self.prompt.put(text.rstrip("\n"))

        later(self, _QUIET_S, open_if_quiet)

    def action_new_chat(self) -> None:
        """This one is kept."""
        self._slash.do_new("")

    def action_stop(self) -> None:
        """Esc: end the reply, leave the edit, or normal mode."""
        vim = self.prompt.vim
        if self._owner.busy:
            self.status.say("stopping")
            self._owner.stop()
        elif vim is not None and not vim.is_normal:
            vim.normal()
            self.status.say("normal mode: i writes again")
        elif self.editing.turn is not None:
            self.editing.leave()

    def action_interrupt(self) -> None:
        """Ctrl+C: copy what is selected, else stop the reply, else quit at the second time."""
        selected = self.get_selected_text() or self.prompt.selected_text
        if selected:
            self._owner.copy_to_clipboard(selected)
            self.clear_selection()
            self.prompt.selection = Selection.cursor(self.prompt.cursor_location)
            self.status.say("copied")
        elif self._owner.busy:
            self.action_stop()
        elif self._quitting:
            self._owner.exit()
        else:
            self._quitting = True
            self.status.say("Ctrl+C again quits")

    def action_read(self, where: str) -> None:
        """Move the transcript; the prompt keeps the focus."""
        move = getattr(self.transcript, f"scroll_{where}")
        move(animate=False)

    # --- the model ----------------------------------------------------------------------------

    def switch_model(self, name: str) -> None:
        """The chat goes on with another one."""
        self.status.say(f"loading {name}")
        self.ask(SwitchModel(name), self._switched)

    def _switched(self, event: Event) -> None:
        if isinstance(event, ModelSwitched):
            self.show_title()
            if (info := self.conversation.info) is not None:
                self.library.set_model(info.id, event.card.name)
            self.status.say(f"{event.card.name} goes on with this chat")
        elif isinstance(event, ReplyFailed):
            self.transcript.notice(event.message, "error")
            self.status.say("the model stays as it was")
        self.show_keys()

    # --- tools --------------------------------------------------------------------------------

    async def approve(self, calls: tuple[Call, ...]) -> None:
        """Ask the user about every call, run those with a yes, and tell the model."""
        results = []
        for call in calls:
            question = f"The model asks for\n\n{described(call)}\n\nRun it?"
            yes = await self._owner.push_screen_wait(Question(question))
            results.append(run(call, self._owner.tools) if yes else "error: the user said no")
        self.turns.send("\n\n".join(results), role="tool")
