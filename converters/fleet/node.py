"""A step of a fleet's build: what it does, to what, and the digest that says both.

The digest is of all that decides what the step writes, and of no path: inputs count by what they
hold, earlier steps by their digests. So it is known before anything is done, and the same step of
two fleets, or of two recipes, is one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgellm import _native
from edgellm.durable import write_whole
from edgellm.errors import FormatError, UnsupportedError

from ..calibrate.work import make_folder

VERSION = 1
MEASURE, DESCRIBE = "measure", "describe"  # what is done besides the steps of recipes
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "do": str,
    "label": str,
    "about": dict,
    "settings": dict,
    "base": str,
    "source": str,
    "inputs": list,
    "checkpoint": str,
    "after": list,
    "texts": dict,
    "stamps": dict,
    "shared": str,
    "n_weights": int,
    "seconds": (int, float),
    "memory_bytes": int,
    "gpus": int,
}


@dataclass(frozen=True)
class Node:
    """about: what the digest is of. settings: of the step, as in the manifest, with paths that are
    relative to `base`. inputs: digests of the steps before, the one whose model it takes last.
    checkpoint: the one of them that made the last checkpoint; "": the source is it. after: digests
    of steps that share what they measure, of which one goes first. stamps: size and time of every
    input file when its digest was taken. shared: a key of what is shared. seconds, memory_bytes:
    estimates. gpus: that it is to have for itself, which are no part of what it gives."""

    do: str
    label: str
    about: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    base: str = ""
    source: str = ""
    inputs: tuple[str, ...] = ()
    checkpoint: str = ""
    after: tuple[str, ...] = ()
    texts: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, Any] = field(default_factory=dict)
    shared: str = ""
    n_weights: int = 0
    seconds: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()


def environment() -> dict[str, str | None]:
    """Of the programs whose version may show in the bytes of a step."""
    try:
        torch: str | None = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = None
    return {"edgellm": _native.version(), "torch": torch}


def check_environment(node: Node) -> None:
    """UnsupportedError where this machine would not give the bytes that were planned."""
    planned, here = node.about.get("environment"), environment()
    if planned != here:
        raise UnsupportedError(
            f"{node.label}: planned for {planned}, but here are {here}; install the same versions",
            code="feature_unsupported",
        )


def stamp_of(path: Path) -> list[int]:
    """Changes when a file does, and is the same from every machine that sees it."""
    try:
        at = path.stat()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    return [at.st_size, at.st_mtime_ns]


def check_stamps(node: Node) -> None:
    """FormatError where an input has changed since the build was planned."""
    for name, stamp in node.stamps.items():
        if stamp_of(Path(name)) != stamp:
            message = f"{name}: has changed since the build was planned; start the build again"
            raise FormatError(message, code="fleet_changed")


def check_digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        message = f"{text[:80]!r} is no digest of a step: 64 hex digits"
        raise FormatError(message, code="fleet_step")
    return text


def write_node(work: Path, node: Node) -> None:
    """Whole or not at all."""
    path = node_path(work, node.digest)
    text = json.dumps({"version": VERSION, **asdict(node)}, indent=1)
    make_folder(path.parent)
    write_whole(path, text)


def read_node(work: Path, digest: str) -> Node:
    """FormatError where there is none of that digest, or it is not what the digest says."""
    path = node_path(work, check_digest(digest))
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        message = f"{work}: no step {digest}; `edgellm fleet build` writes them"
        raise FormatError(message, code="fleet_step") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="fleet_step") from error
    if not isinstance(value, dict) or value.pop("version", None) != VERSION:
        raise FormatError(f"{path}: no step of this version", code="fleet_step")
    is_right = value.keys() == _TYPES.keys() and all(
        isinstance(value[key], kind) and not isinstance(value[key], bool)
        for key, kind in _TYPES.items()
    )
    if not is_right:
        raise FormatError(f"{path}: not what describes a step", code="fleet_step")
    node = Node(**{**value, "inputs": tuple(value["inputs"]), "after": tuple(value["after"])})
    for one in (*node.inputs, *node.after, *filter(None, (node.checkpoint,))):
        check_digest(str(one))
    if node.digest != digest:
        raise FormatError(f"{path}: is not the step of its name", code="fleet_step")
    return node


def node_path(work: Path, digest: str) -> Path:
    """Where a step is described."""
    return work / "nodes" / f"{digest}.json"
