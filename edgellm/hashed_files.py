"""What the bytes of files were when they were hashed, remembered while nobody has written to them.

A file is told by device, inode, size, mtime and ctime: the last is set by the system on each write
and cannot be set back, short of a wrong clock. So it protects from everybody who may write the file
and not this user's cache; not from who writes the disk below the file system, or its memory, nor
from those who may write the cache, who are the user. docs/SIGNING.md.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .errors import FormatError
from .small_files import read_small

_MAX_BYTES = 65536
_SETTLED_NS = 2_000_000_000  # clocks of file systems are as coarse as that: two writes, one time


class HashedFile:
    """Of an open file, before it is hashed. claims: what was found of these very bytes, a line of
    text each; none where the system has no ctime of changes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._identity = _identity(file)
        self._was_settled = time.time_ns() - os.fstat(file.fileno()).st_ctime_ns > _SETTLED_NS
        self._path = _path_of(self._identity)
        self.claims = self._stored()

    def remember(self, claim: str) -> None:
        """That it holds; not where the file was written while, or just before, it was hashed. Best
        effort: what is not remembered is hashed again."""
        if self._path is None or not self._was_settled or _identity(self._file) != self._identity:
            return
        self.claims |= {claim}
        text = self._identity + "".join(f"{one}\n" for one in sorted(self.claims))
        part = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}.tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(text.encode("ascii"))
            os.replace(part, self._path)
        except OSError:
            with suppress(OSError):
                part.unlink()

    def _stored(self) -> frozenset[str]:
        """Nothing, where another user could have written it."""
        if self._path is None or not _is_private(self._path.parent, self._path):
            return frozenset()
        try:
            text = read_small(self._path, _MAX_BYTES).decode("ascii", "replace")
        except FormatError:
            return frozenset()
        if not text.startswith(self._identity):
            return frozenset()
        return frozenset(text.removeprefix(self._identity).splitlines())


def _identity(file: BinaryIO) -> str:
    found = os.fstat(file.fileno())
    return (
        f"edgellm hashed 1\ndevice {found.st_dev}\ninode {found.st_ino}\nsize {found.st_size}\n"
        f"mtime_ns {found.st_mtime_ns}\nctime_ns {found.st_ctime_ns}\n"
    )


def _path_of(identity: str) -> Path | None:
    folder = _folder()
    return None if folder is None else folder / hashlib.sha256(identity.encode()).hexdigest()


def _folder() -> Path | None:
    """Beside what the runtime remembers. None where ctime is when a file was made."""
    if sys.platform == "win32":
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        home = Path(os.environ.get("HOME", ""))
        if not home.is_absolute():
            return None
        cache = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return cache / "edgellm" / "hashed"


def _is_private(*paths: Path) -> bool:
    """Theirs alone who run this: no links, and nobody else may write."""
    try:
        found = [path.lstat() for path in paths]
    except OSError:
        return False
    return all(
        not stat.S_ISLNK(one.st_mode)
        and not one.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        and (sys.platform == "win32" or one.st_uid == os.geteuid())
        for one in found
    )
