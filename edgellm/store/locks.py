"""Locks between processes, which end with their holder, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceError

if TYPE_CHECKING:
    from filelock import FileLock

LOCK_TIMEOUT_S = 60.0  # writers hold it for a moment; work on a model is done outside


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits for its turn; DeviceError after LOCK_TIMEOUT_S."""
    from filelock import Timeout

    lock = folder_lock(path)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        message = (
            f"{path}: another process has been changing the store for {LOCK_TIMEOUT_S:.0f} s; "
            "let it finish, or end it"
        )
        raise DeviceError(message, code="store_busy") from None
    try:
        yield
    finally:
        lock.release()


def folder_lock(path: Path) -> FileLock:
    """The lock whose file is `path`, not taken yet."""
    from filelock import FileLock

    return FileLock(path, poll_interval=0.01)


def drop_lock(lock: FileLock) -> None:
    """Releases a lock and deletes its file; the writer lock is held."""
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def try_lock(lock: FileLock) -> bool:
    """Takes it, unless somebody has it."""
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
