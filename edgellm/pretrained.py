"""`from_pretrained()`: a model by path or by its name on the hub, converted where it must be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import EdgeError, InvalidArgumentError
from .locate import Found, find
from .model import Model, load

if TYPE_CHECKING:
    from .store.sources import Progress
    from .store.store import Store, Stored


def from_pretrained(
    path_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = True,
    **options: Any,
) -> Model:
    """Load a `.edge` file, a checkpoint's directory, a GGUF file, or what is in the store or in the
    Hugging Face cache under that name; all but the first are converted into the store, once, which
    needs `edgellm[convert]`. `revision`: a branch, tag or commit of the hub, or a tag of the store.
    `options`: those of `load()`.

    Opens no connection. With `local_files_only=False`, what is not here is fetched by `edgellm
    pull`, in a process of its own, unless HF_HUB_OFFLINE is set. FormatError where nothing is
    found; what converting, pulling and loading raise.
    """
    found = _found(path_or_id, revision)
    if found is None and not local_files_only and isinstance(path_or_id, str):
        _pull(path_or_id, revision)
        found = _found(path_or_id, revision)
    if found is None:
        return load(path_or_id if revision is None else f"{path_or_id}@{revision}", **options)
    return load(_converted(found).path if found.is_source else found.path, **options)


def _found(name: str | os.PathLike[str], revision: str | None) -> Found | None:
    if revision is None:
        found = find(name)
        return found if found.path.exists() else None
    if not isinstance(name, str) or Path(name).exists():
        message = f"revision={revision!r} is for names, and {os.fsdecode(name)} is a path"
        raise InvalidArgumentError(message, code="invalid_argument")
    for text in (f"{name}:{revision}", f"{name}@{revision}"):
        found = find(text)
        if found != Found(Path(text)):
            return found
    return None


def _converted(found: Found) -> Found:
    from .store.made import made_once, named_by_key

    def make(store: Store, source: Found, key: str) -> Stored:
        from .converters import convert

        named = named_by_key(source, key)
        assert named.reference is not None
        return store.make(
            key, lambda out: convert(source.path, out), named.reference, source.origin
        )

    return made_once(found, {}, _silent, make)


@contextmanager
def _silent() -> Iterator[Progress]:
    yield lambda *_: None


def _pull(name: str, revision: str | None) -> None:
    """By the verb: the one door to the network. Its notes go to stderr."""
    whole = name if revision is None else f"{name}@{revision}"
    command = [sys.executable, "-m", "edgellm", "pull", whole, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode == 0:
        return
    try:
        told = json.loads(done.stdout)["error"]
    except (ValueError, KeyError):
        raise EdgeError(f"edgellm pull {whole} ended with {done.returncode}", "internal") from None
    kind = getattr(errors, str(told["type"]), EdgeError)
    raise (kind if isinstance(kind, type) and issubclass(kind, EdgeError) else EdgeError)(
        told["message"], told["code"]
    )
