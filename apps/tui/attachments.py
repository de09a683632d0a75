"""Files in a message: `@path` becomes the text of the file, and is shown as one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import FormatError, InvalidArgumentError
from edgellm.small_files import read_small_text

MAX_BYTES = 1 << 20
_NAMED = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|(\S+))')
_TRAILING = ".,;:!?)"
_FILE = re.compile(r"\n\n\[file: ([^\n]*)\]\n(`{3,})\n(.*?)\n\2(?=\n|$)", re.DOTALL)


@dataclass(frozen=True)
class Attachment:
    """A file that a message names, as it was when it was read."""

    name: str
    text: str


def named_files(message: str, folder: Path) -> list[Path]:
    """Files that are there; `@name` of no file is text, as in an address."""
    paths: dict[Path, None] = {}
    for quoted, bare in _NAMED.findall(message):
        for name in (quoted,) if quoted else (bare, bare.rstrip(_TRAILING)):
            path = path_of(name, folder)
            if is_file(path):
                paths[path] = None
                break
    return list(paths)


def read(path: Path, folder: Path) -> Attachment:
    """FormatError: it cannot be read, or is too large. InvalidArgumentError: no text."""
    text = read_small_text(path, MAX_BYTES)
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    return Attachment(str(name).replace("\n", "␊"), text.replace("\r\n", "\n"))


def with_files(message: str, folder: Path) -> str:
    """`message` and the files that it names, as the model reads them."""
    parts = [message]
    for attached in (read(path, folder) for path in named_files(message, folder)):
        longest = max((len(run) for run in re.findall("`+", attached.text)), default=0)
        fence = "`" * max(3, longest + 1)
        parts.append(f"[file: {attached.name}]\n{fence}\n{attached.text.rstrip()}\n{fence}")
    return "\n\n".join(parts)


def folded(message: str) -> str:
    """As it is shown: a line for each file."""

    def line(found: re.Match[str]) -> str:
        n_lines = found[3].count("\n") + 1
        return f"\n▸ {found[1]} · {n_lines} line{'s' if n_lines > 1 else ''}"

    return _FILE.sub(line, message)


def without_files(message: str) -> str:
    """As it was written."""
    return _FILE.sub("", message)


def estimate(message: str, folder: Path, count: Callable[[str], int]) -> str:
    """What the files of a message will take, in words; empty without any."""
    parts = []
    for path in named_files(message, folder):
        try:
            parts.append(f"{path.name} {count(read(path, folder).text):,} tokens")
        except (FormatError, InvalidArgumentError) as error:
            parts.append(error.message)
    return " · ".join(parts)


def completions(begun: str, folder: Path) -> list[str]:
    """Paths that `begun`, the part after the @, may become; folders end in a slash."""
    base = begun.rpartition("/")[0]
    inside = path_of(base or ("/" if begun.startswith("/") else "."), folder)
    stem = begun[len(base) + 1 if base or begun.startswith("/") else 0 :]
    prefix = begun[: len(begun) - len(stem)]
    try:
        entries = sorted(inside.iterdir())[:10_000]
    except (OSError, ValueError):
        return []
    shown = [entry for entry in entries if stem.startswith(".") or not entry.name.startswith(".")]
    return [
        prefix + entry.name + ("/" if entry.is_dir() else "")
        for entry in shown
        if entry.name.startswith(stem) and entry.name.isprintable()
    ]


def path_of(name: str, folder: Path) -> Path:
    """As the user wrote it: from `folder` on, or from a home directory."""
    try:
        return folder / Path(name).expanduser()
    except RuntimeError:  # nobody of that name
        return folder / name


def is_file(path: Path) -> bool:
    """Also of what can be no path."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or a NUL
        return False
