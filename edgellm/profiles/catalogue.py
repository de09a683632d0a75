"""Where profiles are: those that come with edgellm, by name, and anybody's own, by path."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..errors import FormatError, InvalidArgumentError
from ..small_files import read_small
from .reader import parse_profile
from .schema import HardwareProfile

GENERIC = "generic"
_MAX_BYTES = 1 << 20
_FOLDER = "hardware_profiles"


def profiles_directory() -> Path:
    """Beside this package's own folder where it is installed, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for base in (package, package.parent):
        if (base / _FOLDER / f"{GENERIC}.toml").is_file():
            return base / _FOLDER
    message = f"{package / _FOLDER} is not there: install edgellm again"
    raise FormatError(message, code="file_not_found")


def profile_names() -> list[str]:
    """What `--device` takes besides paths, in alphabetical order."""
    return sorted(path.stem for path in profiles_directory().glob("*.toml"))


def find_profile(name_or_path: str | Path) -> HardwareProfile:
    """A profile that comes with edgellm, or the one in a file whose name ends in .toml.
    InvalidArgumentError for a name that is none, FormatError for a file that is none."""
    text = str(name_or_path)
    if text.endswith(".toml"):
        return read_profile(Path(text))
    names = profile_names()
    if text in names:
        return read_profile(profiles_directory() / f"{text}.toml")
    close = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    message = f"there is no device {text!r:.100}; {hint}a .toml file, or one of {', '.join(names)}"
    raise InvalidArgumentError(message, code="invalid_argument")


def read_profile(path: Path) -> HardwareProfile:
    """The profile in a file; FormatError names the file, the key and what is wrong."""
    return parse_profile(read_small(path, _MAX_BYTES), str(path))
