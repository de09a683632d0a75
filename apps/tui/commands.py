"""Lines that begin with a slash: what they are called, what they take, what they do."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from edgellm.errors import InvalidArgumentError


@dataclass(frozen=True)
class Command:
    """`method`: of whoever runs it, called with the rest of the line."""

    name: str
    takes: str
    meaning: str
    also: str = ""

    @property
    def method(self) -> str:
        """What runs it."""
        return f"do_{self.name}"


COMMANDS = (
    Command("help", "", "all keys and commands"),
    Command("new", "", "a new chat; this one is kept", also="clear"),
    Command("sessions", "[WORDS]", "chats: search, resume, rename, delete", also="resume"),
    Command("models", "", "models here, and whether they fit"),
    Command("model", "NAME", "go on with another model; the chat stays"),
    Command("settings", "", "theme, keys, thinking, tools"),
    Command("bench", "", "how fast this model is here"),
    Command("about", "", "what this is, and where chats are kept"),
    Command("retry", "", "another reply, as a branch", also="again"),
    Command("continue", "", "go on with the last reply"),
    Command("edit", "[N]", "edit message N (the last one); the old one stays as a branch"),
    Command("branch", "[N]", "the next branch, or branch N, of the last turn that has several"),
    Command("copy", "[N]", "copy the reply, or its N-th block of code"),
    Command("attach", "PATH", "put a file into the message; as @PATH in it"),
    Command("system", "[TEXT]", "the system prompt of this chat; without a text, show it"),
    Command("persona", "[NAME]", "take a kept system prompt; without a name, list them"),
    Command("keep", "NAME", "keep this system prompt as a persona"),
    Command("forget", "NAME", "forget a persona"),
    Command("rename", "[TITLE]", "a title for this chat; without one, the automatic title"),
    Command("delete", "", "delete this chat for good"),
    Command("export", "[md|json] [FILE] [LAST]", "write the chat, or its last turns, to a file"),
    Command("think", "", "show or hide thinking"),
    Command("tools", "[on|off]", "let the model ask for tools; each call needs your yes"),
    Command("theme", "[NAME]", "dark, light, colour-blind, colour-blind-light, terminal"),
    Command("vim", "[on|off]", "keys of vi in the prompt"),
    Command("quit", "", "quit", also="exit"),
)
_BY_NAME = {name: one for one in COMMANDS for name in (one.name, one.also) if name}


def parse(line: str) -> tuple[Command, str] | None:
    """The command and what is behind it; None for a message. `//` begins a message with a slash.
    InvalidArgumentError: there is no such command."""
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, rest = line[1:].partition("\n" if "\n" in line.partition(" ")[0] else " ")
    command = _BY_NAME.get(name)
    if command is None:
        close = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"did you mean /{close[0]}?" if close else "/help lists them"
        message = f"no command /{name:.40}; {hint} (// begins a message with a slash)"
        raise InvalidArgumentError(message, code="invalid_argument")
    if rest.strip() and not command.takes:
        message = f"/{command.name} takes nothing behind it"
        raise InvalidArgumentError(message, code="invalid_argument")
    if not rest.strip() and command.takes and not command.takes.startswith("["):
        message = f"/{command.name} needs {command.takes}: {command.meaning}"
        raise InvalidArgumentError(message, code="invalid_argument")
    return command, rest.strip()


def completions(begun: str) -> list[str]:
    """Names that begin so, without the slash."""
    return sorted(name for name in _BY_NAME if name.startswith(begun))
