"""What the user has chosen, in one TOML file that people may edit too."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgellm.durable import replace_whole
from edgellm.errors import FormatError, InvalidArgumentError

from .keys import keymap

THEMES = ("dark", "light", "colour-blind", "colour-blind-light", "terminal")
FILE_NAME = "chat.toml"
_MAX_BYTES = 64 << 10


@dataclass(frozen=True)
class Settings:
    """`thinking`: shown from the start. `tools`: the model may ask for them. `vim`: keys of vi in
    the prompt. `keys`: names of keys.py to keys."""

    theme: str = "dark"
    thinking: bool = False
    tools: bool = False
    vim: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)

    def changed(self, **values: Any) -> Settings:
        """With other values. InvalidArgumentError: one that cannot be."""
        new = replace(self, **values)
        if new.theme not in THEMES:
            message = f"theme must be {' or '.join(THEMES)}, but is {new.theme!r:.60}"
            raise InvalidArgumentError(message, code="invalid_argument")
        keymap(new.keys)
        return new


def default_path() -> Path:
    """$EDGELLM_HOME/chat.toml, else in the user's configuration ($XDG_CONFIG_HOME/edgellm)."""
    home = os.environ.get("EDGELLM_HOME")
    if home:
        return Path(home).expanduser().absolute() / FILE_NAME
    import platformdirs

    return platformdirs.user_config_path("edgellm", appauthor=False) / FILE_NAME


def read_settings(path: Path) -> Settings:
    """Those in the file; the defaults if there is none. FormatError: what in it is wrong."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError("larger than 64 KiB")
        found = tomllib.loads(text.decode())
        _check(found)
        return Settings().changed(**found)
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, RecursionError) as error:  # TOML's and ours are ValueErrors
        message = f"{path}: these settings cannot be read: {error}; mend the file or delete it"
        raise FormatError(message, code="file_unreadable") from error


def write_settings(settings: Settings, path: Path) -> None:
    """In the place of what was there. FormatError: it cannot be written."""
    lines = [
        f"{one.name} = {json.dumps(getattr(settings, one.name))}"
        for one in fields(Settings)
        if one.name != "keys"
    ]
    if settings.keys:
        lines += ["", "[keys]"]
        lines += [f"{name} = {json.dumps(keys)}" for name, keys in sorted(settings.keys.items())]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, ("\n".join(lines) + "\n").encode("utf-8"))
    except OSError as error:
        message = f"{path}: settings cannot be written: {error.strerror}"
        raise FormatError(message, code="file_write_failed") from error


def _check(found: Mapping[str, Any]) -> None:
    known = {one.name: getattr(Settings(), one.name) for one in fields(Settings)}
    for name, value in found.items():
        if name not in known:
            raise ValueError(f"{name}: no such setting; there are {', '.join(known)}")
        if name == "keys":
            if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
                raise ValueError("[keys]: must be names and texts")
        elif type(value) is not type(known[name]):
            raise ValueError(f"{name}: must be like {json.dumps(known[name])}")
