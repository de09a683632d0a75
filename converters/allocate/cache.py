"""What was measured, on disk: one JSON file per key, so that a second limit asks for no new pass.

A key stands for a checkpoint, the tokens, the method and the version of what is measured; formats
are entries inside, so that a new format is measured beside the old ones. Written whole under a
temporary name and renamed after every entry: an interrupted run goes on from there. A file that
is not what was written is measured again. Knows no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.durable import replace_whole
from edgellm.errors import FormatError

from ..calibrate.work import METHODS_VERSION

VERSION = 1  # raised when the same inputs would give other figures
MAX_CACHE_BYTES = 64 << 20


def default_cache_dir() -> Path:
    """In the user's cache directory."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgellm", appauthor=False)) / "allocate"


def cache_key(source: Mapping[str, Any], method: str, tokens: Mapping[str, str]) -> str:
    """source: digests of the checkpoint's files; method: with its parameters; tokens: digests."""
    value = [VERSION, METHODS_VERSION, dict(source), method, dict(tokens)]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class MeasuredCache:
    """Figures by two names. FormatError where the file cannot be written."""

    def __init__(self, directory: Path, key: str) -> None:
        self.folder = directory / key[:32]
        self._path = self.folder / "measured.json"
        self._key = key
        self._values = self._read()

    def get(self, kind: str, name: str, format: str) -> float | None:
        return self._values.get(f"{kind}|{name}|{format}")

    def put(self, kind: str, name: str, format: str, value: float) -> None:
        self._values[f"{kind}|{name}|{format}"] = value
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"key": self._key, "values": self._values})
            replace_whole(self._path, text.encode("utf-8"))
        except OSError as error:
            raise FormatError(
                f"{self._path}: cannot be written: {error}; name another --cache-dir",
                code="file_write_failed",
            ) from error

    def _read(self) -> dict[str, float]:
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(MAX_CACHE_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        values = found.get("values") if isinstance(found, dict) else None
        if not isinstance(values, dict) or found.get("key") != self._key:
            return {}
        good = all(
            type(value) in (int, float) and math.isfinite(value) and value >= 0
            for value in values.values()
        )
        return {str(name): float(value) for name, value in values.items()} if good else {}
