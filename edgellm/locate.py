"""What a model's name means, and what to say when the file behind it cannot be used.

`find()` is the one place that decides: a path, else an alias or a name of the store, else a
checkpoint in the Hugging Face cache. Nothing is downloaded or converted here.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import EdgeError, FormatError

if TYPE_CHECKING:
    from .store.names import Reference

DEMO = "demo"
ALIASES = (DEMO,)
_DEMO_FILE = Path(__file__).parent / "demo" / "demo.edge"
_MAX_NAMES_READ = 10_000  # of one directory, when looking for similar names
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_FILE_SUFFIXES = (".edge", ".gguf", ".safetensors", ".json", *_PICKLE_SUFFIXES)


@dataclass(frozen=True)
class Found:
    """What a name stands for.

    is_source: it has to be converted first. reference: its name in the store, or the one it would
    get there. origin: where it came from, in words.
    """

    path: Path
    is_source: bool = False
    reference: Reference | None = None
    origin: str = ""


def find(name: str | os.PathLike[str]) -> Found:
    """The model that `name` means; only text, no Path, can be a name. A name that nothing has is
    taken for a path, and whoever opens it says what is wrong (`explained()`)."""
    path = Path(name)
    if name == DEMO:
        if not _DEMO_FILE.is_file():
            message = f"the demo model is missing from this installation: {_DEMO_FILE}"
            raise FormatError(message, code="file_not_found")
        return Found(_DEMO_FILE)
    if _exists(path):
        return _found_path(path)
    return (_in_store(name) or _in_cache(name) if isinstance(name, str) else None) or Found(path)


def resolve(name: str | os.PathLike[str]) -> Path:
    """The file that `name` means, for who cannot convert: FormatError says how to, where a name
    means a checkpoint."""
    found = find(name)
    if found.is_source and found.reference is not None and not _exists(Path(name)):
        message = (
            f"{name} is in the Hugging Face cache, but not converted yet; edgellm run {name} does "
            f"that once, or edgellm convert {name} OUT.edge"
        )
        raise FormatError(message, code="file_unreadable")
    return found.path


def means_model(text: str) -> bool:
    """Whether `text` means something that is there; for telling models from prompts."""
    try:
        return text in ALIASES or _exists(Path(text)) or find(text) != Found(Path(text))
    except EdgeError:
        return True  # it is one, and something is wrong with it
    except (OSError, ValueError):  # too long, or a NUL
        return False


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


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _found_path(path: Path) -> Found:
    from .store.names import Reference, name_from
    from .store.sources import is_source

    try:
        source = is_source(path)
    except OSError:
        return Found(path)
    if not source:
        return Found(path)
    whole = path.absolute()
    stem = whole.name if whole.is_dir() else whole.stem
    return Found(path, True, Reference(name_from(stem)), f"file:{whole}")


def _in_store(name: str) -> Found | None:
    from .store.names import as_reference
    from .store.store import Store

    reference = as_reference(name)
    stored = None if reference is None else Store.default().find(reference)
    return None if stored is None else Found(stored.path, False, stored.reference)


def _in_cache(name: str) -> Found | None:
    from .store.hf_cache import find_snapshot
    from .store.names import as_hub_name

    hub_name = as_hub_name(name)
    snapshot = None if hub_name is None else find_snapshot(hub_name)
    if snapshot is None:
        return None
    return Found(snapshot.path, True, snapshot.hub_name.reference, snapshot.origin)


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
    """The names most like `path`: built-in models, the store's, and files of the deepest folder
    that exists."""
    folder = path.parent
    while not folder.is_dir():
        if folder == folder.parent:
            return ""
        folder = folder.parent
    named = _names_in_store(str(path)) if not path.is_absolute() else []
    if folder != path.parent:
        if hint := _hint_of_hub(path, named):
            return hint
        return f"there is no {path.parent} (the nearest folder that exists is {folder})"
    names = [entry.name for entry, _ in zip(folder.iterdir(), range(_MAX_NAMES_READ), strict=False)]
    close = [str(folder / name) for name in difflib.get_close_matches(path.name, names, 3, 0.5)]
    if path.parent == Path():
        close += difflib.get_close_matches(path.name, ALIASES, n=1, cutoff=0.5)
    close += named
    if close:
        return f"did you mean {_either(iter(close))}?"
    models = sorted(name for name in names if name.endswith(".edge"))[:3]
    there = f"{folder.resolve()} has {', '.join(models)}" if models else ""
    return "; ".join(filter(None, [there, "the built-in model is: demo"]))


def _hint_of_hub(path: Path, named: list[str]) -> str:
    """For OWNER/NAME: it is neither a file nor here, and what would get it."""
    from .store.names import as_hub_name

    if path.suffix in _FILE_SUFFIXES or as_hub_name(str(path).partition(":")[0]) is None:
        return ""
    close = f"; did you mean {_either(iter(named))}?" if named else ""
    name = str(path).partition(":")[0]
    return (
        "no model of that name is in the store (edgellm list) or in the Hugging Face cache; "
        f"edgellm pull {name} gets it from the hub{close}"
    )


def _names_in_store(text: str) -> list[str]:
    """Names of the store that are like `text`; none if the store cannot be read."""
    from .store.store import Store

    try:
        index = Store.default().index()
    except (EdgeError, OSError):
        return []
    return difflib.get_close_matches(text, [*index.tags, *index.aliases], n=3, cutoff=0.6)


def _either(names: Iterator[str]) -> str:
    return " or ".join(names)
