"""What a model's name means, and what to say when the file behind it cannot be used.

Opens nothing on success: `explained()` looks at the path only after a reader has refused it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FormatError

DEMO = "demo"
ALIASES = (DEMO,)
_DEMO_FILE = Path(__file__).parent / "demo" / "seed6m.edge"
_MAX_NAMES_READ = 10_000  # of one directory, when looking for similar names
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def resolve(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: the built-in model for "demo" (`./demo` is a file)."""
    if path != DEMO:
        return Path(path)
    if not _DEMO_FILE.is_file():
        message = f"the demo model is missing from this installation: {_DEMO_FILE}"
        raise FormatError(message, code="file_not_found")
    return _DEMO_FILE


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Adds to a FormatError about `path` what the path is instead, and what to do with it."""
    try:
        yield
    except FormatError as error:
        advice = _advice(path)
        if not advice:
            raise
        raise type(error)(f"{error.message}; {advice}", code=error.code) from None


def _advice(path: Path) -> str:
    try:
        if path.is_dir():
            return _advice_for_directory(path)
        if not path.exists():
            return _nearest(path)
        if not path.is_file():
            return ""  # opening a pipe would wait for a writer
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
    except (OSError, ValueError):
        return ""
    if is_gguf:
        return f"this is a GGUF file; convert it first: edgellm convert {path} OUT.edge"
    if path.suffix == ".safetensors":
        return f"convert its directory first: edgellm convert {path.parent} OUT.edge"
    if path.suffix in _PICKLE_SUFFIXES:
        return "convert the safetensors version of this model: edgellm convert DIR OUT.edge"
    return ""


def _advice_for_directory(path: Path) -> str:
    if (path / "config.json").is_file():
        return f"convert this checkpoint first: edgellm convert {path} OUT.edge"
    inside = sorted(path.glob("*.edge"))[:3]
    if inside:
        return f"it is a directory; did you mean {_either(str(found) for found in inside)}?"
    return "it is a directory; give the .edge file itself"


def _nearest(path: Path) -> str:
    """The names most like `path`: built-in models and files of the deepest folder that exists."""
    folder = path.parent
    while not folder.is_dir():
        if folder == folder.parent:
            return ""
        folder = folder.parent
    if folder != path.parent:
        return f"there is no {path.parent} (the nearest folder that exists is {folder})"
    names = [entry.name for entry, _ in zip(folder.iterdir(), range(_MAX_NAMES_READ), strict=False)]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if path.parent == Path():
        close += difflib.get_close_matches(path.name, ALIASES, n=1, cutoff=0.5)
    if close:
        return f"did you mean {_either(str(folder / name) for name in close)}?"
    models = sorted(name for name in names if name.endswith(".edge"))[:3]
    there = f"{folder.resolve()} has {', '.join(models)}" if models else ""
    return "; ".join(filter(None, [there, "the built-in model is: demo"]))


def _either(names: Iterator[str]) -> str:
    return " or ".join(names)
