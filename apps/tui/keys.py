"""What keys do: their names for the settings, what they are without them, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgellm.errors import InvalidArgumentError


@dataclass(frozen=True)
class Key:
    """`name`: in the settings. `default`: as Textual calls keys, separated by commas. `action`: of
    the chat screen, or of the app where it is `anywhere`."""

    name: str
    default: str
    action: str
    meaning: str
    anywhere: bool = False


KEYS = (
    Key("stop", "escape", "stop", "stop the reply; leave an edit"),
    Key("interrupt", "ctrl+c", "interrupt", "copy the selection, stop the reply, twice: quit"),
    Key("again", "ctrl+r", "regenerate", "another reply, as a branch"),
    Key("continue", "ctrl+l", "continue_reply", "go on with a reply that was cut or stopped"),
    Key("edit_reply", "ctrl+e", "edit_reply", "while editing: the reply instead of the message"),
    Key("branch_left", "alt+left", "branch(-1)", "the branch before"),
    Key("branch_right", "alt+right", "branch(1)", "the next branch"),
    Key("older", "ctrl+up,ctrl+p", "history(-1)", "what you wrote before"),
    Key("newer", "ctrl+down", "history(1)", "what you wrote after that"),
    Key("copy_reply", "ctrl+y", "copy_reply", "copy the reply (OSC 52)"),
    Key("copy_code", "alt+y", "copy_code", "copy its last block of code"),
    Key("thinking", "ctrl+t", "thinking", "show or hide thinking"),
    Key("editor", "ctrl+g", "editor", "write in $VISUAL or $EDITOR"),
    Key("page_up", "pageup", "read('page_up')", "read back"),
    Key("page_down", "pagedown", "read('page_down')", "and forth"),
    Key("top", "ctrl+home", "read('home')", "to the beginning"),
    Key("end", "ctrl+end", "read('end')", "to the end, and follow it"),
    Key("new", "ctrl+n", "new_chat", "a new chat"),
    Key("help", "f1", "open('help')", "all keys and commands", anywhere=True),
    Key("sessions", "f2,ctrl+o", "open('sessions')", "chats: search, resume", anywhere=True),
    Key("models", "f3", "open('models')", "models", anywhere=True),
    Key("settings", "f4", "open('settings')", "settings", anywhere=True),
    Key("bench", "f5", "open('bench')", "how fast it is here", anywhere=True),
    Key("about", "f6", "open('about')", "about", anywhere=True),
    Key("quit", "ctrl+q", "quit", "quit", anywhere=True),
)
BY_NAME = {key.name: key for key in KEYS}


def keymap(chosen: Mapping[str, str]) -> dict[str, str]:
    """Every name with its keys. InvalidArgumentError: a name that is none, or two with one key."""
    for name in chosen:
        if name not in BY_NAME:
            message = f"[keys] {name}: no such key; there are {', '.join(BY_NAME)}"
            raise InvalidArgumentError(message, code="invalid_argument")
    used: dict[str, str] = {}
    found = {key.name: chosen.get(key.name, key.default) for key in KEYS}
    for name, keys in found.items():
        for one in keys.split(","):
            if used.setdefault(one.strip(), name) != name:
                message = f"[keys] {name}: {one.strip()} is the key of {used[one.strip()]} already"
                raise InvalidArgumentError(message, code="invalid_argument")
    return found


def shown(keys: str) -> str:
    """ "ctrl+up,ctrl+p" -> "Ctrl+↑ or Ctrl+P"."""
    arrows = {"up": "↑", "down": "↓", "left": "←", "right": "→", "escape": "Esc"}
    pages = {"pageup": "PgUp", "pagedown": "PgDn"}
    return " or ".join(
        "+".join((arrows | pages).get(part, part.capitalize()) for part in one.strip().split("+"))
        for one in keys.split(",")
    )
