"""Outputs that appear whole or not at all, and never in the place of something else."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.errors import FormatError

SPARE_DISK_BYTES = 4 << 20  # what the file system keeps for itself


def check_target(out: Path, n_bytes: int) -> None:
    """FormatError if `out` exists, or has no folder to be in or no room for `n_bytes`."""
    if out.exists() or out.is_symlink():
        raise FormatError(
            f"{out}: exists; an export replaces nothing: remove it or choose another name",
            code="file_write_failed",
        )
    if not out.parent.is_dir():
        raise FormatError(f"{out.parent}: no such directory", code="file_write_failed")
    free = shutil.disk_usage(out.parent).free
    if free < n_bytes + SPARE_DISK_BYTES:
        raise FormatError(
            f"{out}: will have {n_bytes / 2**20:.1f} MiB, but {free / 2**20:.1f} MiB are free "
            "there; nothing was written: free space or write to another disk",
            code="file_write_failed",
        )


@contextmanager
def whole_directory(out: Path) -> Iterator[Path]:
    """A folder to write into. It becomes `out` when the block ends, or vanishes with an exception;
    an OSError comes out as a FormatError."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        for path in temporary.iterdir():
            _sync(path)
        _sync(temporary)
        temporary.rename(out)
        _sync(out.parent)
    except OSError as error:
        raise FormatError(f"{out}: cannot be written: {error}", code="file_write_failed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_files(out: Path, *others: Path) -> Iterator[Path]:
    """A folder to write files named as `out` and `others` into, those that are needed. They are
    moved into place when the block ends, `out` last; an exception leaves nothing."""
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    moved: list[Path] = []
    try:
        temporary.mkdir()
        yield temporary
        for path in (*others, out):
            written = temporary / path.name
            if written.exists():
                _sync(written)
                written.replace(path)
                moved.append(path)
        _sync(out.parent)
    except OSError as error:
        for path in moved:
            path.unlink(missing_ok=True)
        raise FormatError(f"{out}: cannot be written: {error}", code="file_write_failed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    """Onto the disk, so that the rename is never there before what it names."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # a directory cannot be opened everywhere; its renames are journalled there
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
