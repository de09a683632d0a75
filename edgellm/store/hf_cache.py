"""The Hugging Face cache of this machine, read in place: no library, no network, nothing written.

Its layout is documented for others to read: models--OWNER--NAME/refs/REVISION holds a commit,
snapshots/COMMIT/ the files, as links to blobs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError
from .names import HubName

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its switches


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model in the cache. path: its directory, or the one GGUF file in it."""

    hub_name: HubName
    commit: str
    path: Path

    @property
    def origin(self) -> str:
        return f"hub:{self.hub_name.name}@{self.commit}"


def cache_directory() -> Path:
    """Where huggingface_hub keeps what it downloads: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(name):
            return _expanded(named)
    if home := os.environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids downloads."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def find_snapshot(hub_name: HubName) -> Snapshot | None:
    """The cached checkpoint of a model, or None. FormatError if the cache has it, but not whole."""
    folder = _folder(hub_name)
    commit = _commit(folder, hub_name.revision)
    if commit is None:
        return None
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    names = sorted(entry.name for entry in snapshot.iterdir())
    if "config.json" in names and any(name.endswith(".safetensors") for name in names):
        return Snapshot(hub_name, commit, snapshot)
    files = [name for name in names if name.endswith(".gguf")]
    if len(files) == 1:
        return Snapshot(hub_name, commit, snapshot / files[0])
    if files:
        message = (
            f"{hub_name} is in the Hugging Face cache as {len(files)} files; give the one "
            f"to take: {', '.join(str(snapshot / name) for name in files[:4])}"
        )
        raise FormatError(message, code="store_choice")
    message = (
        f"{hub_name} is in the Hugging Face cache without its weights ({snapshot}); "
        f"edgellm pull {hub_name} gets them"
    )
    raise FormatError(message, code="file_not_found")


def find_blob(hub_name: HubName, digest: str, n_bytes: int) -> Path | None:
    """A file of the cache by the digest that names it (SHA-256, or git's SHA-1 of small ones), if
    it has the right size. What is in it, the caller has to check."""
    path = _folder(hub_name) / "blobs" / digest
    try:
        return path if path.is_file() and path.stat().st_size == n_bytes else None
    except OSError:
        return None


def _folder(hub_name: HubName) -> Path:
    return cache_directory() / f"models--{hub_name.name.replace('/', '--')}"


def _commit(folder: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        text = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()
