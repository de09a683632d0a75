"""What the commands of the chat do. Their names and meanings are in commands.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgellm.errors import InvalidArgumentError

from ..attachments import is_file, path_of
from ..commands import Command
from ..conversation import Conversation
from ..export import FORMATS, export, file_name
from .dialogs import Question

if TYPE_CHECKING:
    from .chat import ChatScreen


def _wrong(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")


class SlashCommands:
    """Of one chat screen. A method for every command; EdgeError says what is wrong."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen

    def run(self, command: Command, rest: str) -> None:
        """Do it."""
        getattr(self, command.method)(rest)

    # --- screens ------------------------------------------------------------------------------

    def do_help(self, _: str) -> None:
        self._screen.owner.action_open("help")

    def do_sessions(self, words: str) -> None:
        self._screen.owner.open_sessions(words)

    def do_models(self, _: str) -> None:
        self._screen.owner.action_open("models")

    def do_settings(self, _: str) -> None:
        self._screen.owner.action_open("settings")

    def do_bench(self, _: str) -> None:
        self._screen.owner.action_open("bench")

    def do_about(self, _: str) -> None:
        self._screen.owner.action_open("about")

    def do_quit(self, _: str) -> None:
        self._screen.owner.exit()

    # --- the chat -----------------------------------------------------------------------------

    def do_new(self, _: str) -> None:
        old = self._screen.conversation
        new = Conversation(self._screen.library)
        new.system = old.system
        self._screen.show_chat(new)
        self._say("a new chat; F2 shows the others")

    def do_rename(self, title: str) -> None:
        self._screen.library.rename(self._screen.conversation.id, title)
        self._screen.show_title()
        self._say("renamed" if title else "the title is automatic again")

    def do_delete(self, _: str) -> None:
        async def ask() -> None:
            screen = self._screen
            chat = screen.conversation.info
            question = f"Delete this chat for good?\n\n{chat.title if chat else ''}"
            if chat is None or not await screen.owner.push_screen_wait(Question(question)):
                return
            screen.library.delete(chat.id)
            screen.prompt.put("")
            screen.conversation = Conversation(screen.library)
            screen.show_chat(screen.conversation)
            self._say("deleted")

        self._screen.run_worker(ask())

    def do_export(self, rest: str) -> None:
        words = rest.split()
        kind = words.pop(0) if words and words[0] in FORMATS else ""
        n_last = (
            int(words.pop()) if words and words[-1].isdecimal() and len(words[-1]) < 9 else None
        )
        name = " ".join(words)
        kind = kind or (name.rpartition(".")[2] if name.endswith((".md", ".json")) else "md")
        info = self._screen.conversation.info
        name = name or file_name(info.title if info else "", kind)
        path = path_of(name, self._screen.owner.folder)
        n_turns = export(self._screen.conversation, path, kind, n_last)
        turns = "1 turn" if n_turns == 1 else f"{n_turns} turns"
        self._say(f"{turns} in {name}")

    # --- turns --------------------------------------------------------------------------------

    def do_retry(self, _: str) -> None:
        self._screen.action_regenerate()

    def do_continue(self, _: str) -> None:
        self._screen.action_continue_reply()

    def do_edit(self, number: str) -> None:
        turns = [turn for turn in self._screen.conversation.branch if turn.role == "user"]
        at = self._number(number, len(turns), "messages") if number else len(turns)
        if at < 1:
            raise _wrong("nothing was said yet")
        self._screen.editing.begin(turns[at - 1].id)

    def do_branch(self, number: str) -> None:
        chat = self._screen.conversation
        many = [turn.id for turn in chat.branch if chat.place(turn.id)[1] > 1]
        if not many:
            raise _wrong("no branches here: Ctrl+R or an edit makes one")
        at, n = chat.place(many[-1])
        wanted = self._number(number, n, "branches") if number else at % n + 1
        self._screen.action_branch(wanted - at)

    def do_copy(self, number: str) -> None:
        if number:
            self._screen.action_copy_code(self._number(number, 999, "blocks of code"))
        else:
            self._screen.action_copy_reply()

    def do_attach(self, path: str) -> None:
        if not is_file(path_of(path, self._screen.owner.folder)):
            raise _wrong(f"{path}: no such file in {self._screen.owner.folder}")
        self._screen.prompt.put(f'@"{path}" ' if " " in path else f"@{path} ")

    # --- who answers --------------------------------------------------------------------------

    def do_system(self, text: str) -> None:
        chat = self._screen.conversation
        if text:
            chat.system = text
            self._say("the system prompt of this chat, from the next message on")
        else:
            self._screen.transcript.notice(chat.system or "This chat has no system prompt.")

    def do_persona(self, name: str) -> None:
        personas = self._screen.library.personas()
        if not name:
            lines = [f"{one}: {system}" for one, system in personas.items()]
            text = "\n".join(lines) or "No personas are kept. /system TEXT, then /keep NAME."
            self._screen.transcript.notice(text)
        elif name in personas:
            self._screen.conversation.system = personas[name]
            self._say(f"{name} answers from the next message on")
        else:
            raise _wrong(f"no persona {name}; there are: {', '.join(personas) or 'none'}")

    def do_keep(self, name: str) -> None:
        system = self._screen.conversation.system
        if not system:
            raise _wrong("this chat has no system prompt to keep; /system TEXT gives it one")
        self._screen.library.keep_persona(name, system)
        self._say(f"/persona {name} takes it in any chat")

    def do_forget(self, name: str) -> None:
        self._screen.library.forget_persona(name)
        self._say(f"{name} is forgotten")

    def do_model(self, name: str) -> None:
        self._screen.switch_model(name)

    # --- settings -----------------------------------------------------------------------------

    def do_think(self, _: str) -> None:
        self._screen.action_thinking()

    def do_tools(self, wanted: str) -> None:
        on = self._on(wanted, self._screen.owner.settings.tools)
        self._screen.owner.change_settings(tools=on)
        names = ", ".join(self._screen.owner.tools)
        self._say(f"the model may ask for {names}" if on else "no tools")

    def do_theme(self, name: str) -> None:
        if name:
            self._screen.owner.change_settings(theme=name)
        else:
            self._screen.owner.action_open("settings")

    def do_vim(self, wanted: str) -> None:
        on = self._on(wanted, self._screen.owner.settings.vim)
        self._screen.owner.change_settings(vim=on)
        self._say("keys of vi" if on else "ordinary keys")

    @staticmethod
    def _on(wanted: str, now: bool) -> bool:
        if wanted not in ("", "on", "off"):
            raise _wrong(f"on or off, not {wanted:.40}")
        return wanted == "on" if wanted else not now

    @staticmethod
    def _number(text: str, most: int, what: str) -> int:
        if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
            raise _wrong(f"{text:.40} is no number of 1 to {most} {what}")
        return int(text)

    def _say(self, text: str) -> None:
        self._screen.status.say(text)
