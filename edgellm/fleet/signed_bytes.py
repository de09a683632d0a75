"""The bytes that a bundle signs of one file: by one SHA-256, or by those of its shards.

Shards are hashed at once, as many as there are cores, which one SHA-256 of a whole file cannot be;
of what is read from a disk, hashing then costs next to nothing. docs/SIGNING.md has the figures.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError, IntegrityError

SHARD_BYTES = 8 << 20  # of the files that are signed here
_BLOCK_BYTES = 256 << 10  # stays in a core's own cache
_reading = threading.Lock()


@dataclass(frozen=True)
class Shards:
    """All of a file of n_bytes, cut at multiples of `size`: SHA-256 of each, in order."""

    size: int
    n_bytes: int
    sha256: tuple[str, ...]

    def span(self, at: int) -> tuple[int, int]:
        """Where a shard begins, and its bytes."""
        begin = at * self.size
        return begin, min(self.size, self.n_bytes - begin)


@dataclass(frozen=True)
class SignedBytes:
    """sha256: of the whole file. shards: where they are listed as well, they are what is hashed;
    whoever has signed them says that both are of the same bytes."""

    sha256: str
    shards: Shards | None = None

    @property
    def claim(self) -> str:
        """What stands for the bytes that check() has seen."""
        if self.shards is None:
            return f"sha256 {self.sha256}"
        return f"shards {hashlib.sha256(repr(self.shards).encode()).hexdigest()}"

    def check(self, file: BinaryIO, path: Path, where: str, n_threads: int | None = None) -> None:
        """Hashes an open file, called `path`: IntegrityError unless it is what `where` signs, byte
        for byte. n_threads: None for all cores."""
        if self.shards is None:
            self.check_sha256(sha256_of(file, path), path.name, where)
            return
        try:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes != self.shards.n_bytes:
                raise _differs(path.name, where, f"of {self.shards.n_bytes} bytes, not {n_bytes}")
            wrong = _wrong_shard(file, self.shards, n_threads or _n_cores())
        except OSError as error:
            raise _unreadable(path, error) from error
        if wrong is not None:
            begin, n_bytes = self.shards.span(wrong)
            raise _differs(path.name, where, f"other bytes from {begin} to {begin + n_bytes}")

    def check_sha256(self, sha256: str, name: str, where: str) -> None:
        """The same of a file whose digest is known."""
        if self.sha256 != sha256:
            raise _differs(name, where, f"of the SHA-256 {self.sha256[:16]}...")


def sha256_of(file: BinaryIO, path: Path) -> str:
    """Of all of an open file, which is called `path`."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    try:
        file.seek(0)
        while n_read := _read_into(file, buffer):
            digest.update(buffer[:n_read])
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _wrong_shard(file: BinaryIO, shards: Shards, n_threads: int) -> int | None:
    """The number of the first one found whose bytes are others; the rest is not read then. Each
    thread has a stretch of the file: of those the system reads ahead."""
    n_shards = len(shards.sha256)
    n_each = -(-n_shards // min(n_threads, n_shards))
    wrong: list[int] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def check(first: int) -> None:
        try:
            with _opened_again(file) as own:
                buffer = memoryview(bytearray(min(_BLOCK_BYTES, shards.size)))
                for at in range(first, min(first + n_each, n_shards)):
                    if stop.is_set():
                        return
                    if _shard_sha256(own, shards.span(at), buffer) != shards.sha256[at]:
                        wrong.append(at)
                        stop.set()
        except BaseException as error:
            failed.append(error)
            stop.set()

    threads = [threading.Thread(target=check, args=(at,)) for at in range(0, n_shards, n_each)]
    for one in threads:
        one.start()
    try:
        for one in threads:
            one.join()
    except BaseException:
        stop.set()  # Ctrl-C: those that run end after their shard
        raise
    if failed:
        raise failed[0]
    return min(wrong, default=None)


@contextmanager
def _opened_again(file: BinaryIO) -> Iterator[int]:
    """A descriptor of the same open file, by no name that may mean another. Where it can be, with
    a place of its own, from which the system reads ahead."""
    descriptor = file.fileno()
    if sys.platform != "linux":
        yield descriptor
        return
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc
        yield descriptor
        return
    try:
        yield own
    finally:
        os.close(own)


def _shard_sha256(descriptor: int, span: tuple[int, int], buffer: memoryview) -> str:
    digest = hashlib.sha256()
    at, n_left = span
    while n_left > 0:
        n_read = _read_at(descriptor, buffer[:n_left], at)
        if n_read == 0:
            break  # it shrank: fewer bytes have another digest
        digest.update(buffer[:n_read])
        at, n_left = at + n_read, n_left - n_read
    return digest.hexdigest()


def _read_at(descriptor: int, buffer: memoryview, at: int) -> int:
    if sys.platform != "win32":
        return os.preadv(descriptor, [buffer], at)
    with _reading:  # no reads at a place there: they take turns, hashes do not
        os.lseek(descriptor, at, os.SEEK_SET)
        data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def _read_into(file: BinaryIO, buffer: memoryview) -> int:
    return file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]  # opened unbuffered


def _n_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _differs(name: str, where: str, what: str) -> IntegrityError:
    message = f"{where}: signs another file than {name} ({what}); nothing of it is used"
    return IntegrityError(message, code="signature_digest")


def _unreadable(path: Path, error: OSError) -> FormatError:
    return FormatError(f"{path}: cannot be read: {error}", code="file_unreadable")
