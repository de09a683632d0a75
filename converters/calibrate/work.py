"""What a calibrated conversion has done so far, on disk: one file per quantized matrix.

A folder belongs to one key (what is converted, how, and on which text), so nothing is ever found
that another conversion left. A file is the SHA-256 of its strips and the strips, written under a
temporary name and renamed: after `kill -9` it is there whole or not at all, and one that was
damaged since is made again. Knows no format and no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import FormatError

from ..quant.tiles import U8Array

METHODS_VERSION = 2  # raised when the same inputs would give other strips
_DIGEST_BYTES = 32


def work_key(source: Mapping[str, Any], recipe_json: str) -> str:
    """source: digests of the checkpoint's files; recipe_json: with the calibration's digest."""
    value = {"version": METHODS_VERSION, "source": dict(source), "recipe": recipe_json}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def make_folder(path: Path) -> None:
    """With its parents, unless it is there; FormatError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{path}: cannot be made: {error}", code="file_write_failed") from error


class WorkDir:
    """root holds one folder per key. FormatError where it cannot be written."""

    def __init__(self, root: Path, key: str) -> None:
        self._root = root
        self._folder = root / key[:32]
        make_folder(self._folder)

    def load(self, name: str, n_bytes: int) -> U8Array | None:
        """The strips of matrix `name`; None if they are not there, or not what was written."""
        try:
            data = np.fromfile(self._path(name), dtype=np.uint8)
        except OSError:
            return None
        digest, strips = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if strips.size != n_bytes or hashlib.sha256(strips.data).digest() != digest.tobytes():
            return None
        return strips

    def store(self, name: str, strips: U8Array) -> None:
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(hashlib.sha256(strips.data).digest())
                file.write(strips.data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FormatError(
                f"{path}: cannot be written: {error}", code="file_write_failed"
            ) from error

    def remove(self) -> None:
        """The folder of this key, and the root if nothing else is in it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            self._root.rmdir()
        except OSError:
            return  # other conversions work there

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.strips"
