"""Help and About."""

from __future__ import annotations

import platform
from typing import ClassVar

import edgellm

from ..commands import COMMANDS
from ..keys import KEYS, keymap, shown
from ..library.schema import FILE_NAME, default_directory
from .sheet import TextSheet


class Help(TextSheet):
    """All keys and commands."""

    TITLE_TEXT: ClassVar[str] = "Keys and commands"

    def text(self) -> str:
        """Two tables."""
        keys = keymap(self.app.settings.keys)
        fixed = [
            ("Enter", "send"),
            ("Ctrl+J", "a new line; some terminals: Shift+Enter, Alt+Enter"),
            ("↑ in an empty prompt", "edit a message; ↑ and ↓ choose which"),
            ("Tab", "complete @PATH or /COMMAND"),
            ("@PATH", "in a message: the file is sent with it"),
        ]
        rows = fixed + [(shown(keys[key.name]), key.meaning) for key in KEYS]
        rows += [("", "")] + [(f"/{one.name} {one.takes}", one.meaning) for one in COMMANDS]
        return self.table(rows)


class About(TextSheet):
    """What this is."""

    TITLE_TEXT: ClassVar[str] = "About"

    def text(self) -> str:
        """Versions, and where things are."""
        card = self.app.engine.card
        library = self.app.library
        kept = str(default_directory() / FILE_NAME) if library.is_kept else "nowhere (--no-history)"
        rows = [
            ("edgellm", edgellm.__version__),
            ("Python", f"{platform.python_version()} on {platform.system()}"),
            ("model", f"{card.name} · {card.details}"),
            ("weights", card.root[:16]),
            ("context", f"{card.n_ctx:,} tokens"),
            ("chats", kept),
            ("settings", str(self.app.settings_path or "not written down")),
        ]
        promise = (
            "",
            "Everything runs on this machine, in this process: no chat, file or figure",
            "leaves it, and no connection is opened. Only edgellm pull fetches models.",
            "",
            "Apache-2.0. The weights of models have licences of their own.",
        )
        return "\n".join([self.table(rows), *promise])
