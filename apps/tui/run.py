"""From the command line to the screen: which chat, which settings, where things are kept."""

from __future__ import annotations

import sys
from pathlib import Path

from edgellm.errors import EdgeError, InvalidArgumentError

from .engine import Engine
from .library import Library
from .library.schema import default_directory
from .settings import default_path, read_settings

LAST = "last"


def kv_directory() -> Path:
    """Where the KV of chats that are kept outlives the program."""
    return default_directory() / "kv"


def open_library(kept: bool) -> Library:
    """The user's, or one that is gone at the end."""
    return Library(default_directory() if kept else None)


def found_chat(library: Library, words: str) -> int:
    """The latest chat, or the latest that has `words`. InvalidArgumentError: there is none."""
    chats = library.chats() if words == LAST else [found.chat for found in library.search(words)]
    if not chats:
        which = "no chat is kept yet" if words == LAST else f"no chat has {words!r:.80}"
        message = f"{which}; edgellm chat, and F2 there, shows them all"
        raise InvalidArgumentError(message, code="invalid_argument")
    return chats[0].id


def run_screen(
    engine: Engine,
    library: Library,
    *,
    greeting: str | None,
    chat: int | None,
    system: str | None,
) -> None:
    """Until the user ends it. Raises what broke it."""
    from .app import ChatApp

    path = default_path()
    app = ChatApp(
        engine,
        greeting=greeting,
        library=library,
        chat=chat,
        system=system,
        settings=read_settings(path),
        settings_path=path,
    )
    app.run()
    if app.crash is not None:
        raise app.crash
    if app.return_code:
        message = "the chat screen ended with an error; --plain works without it"
        raise EdgeError(message, code="internal")
    sys.stdout.flush()
