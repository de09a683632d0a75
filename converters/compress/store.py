"""What a compression has done so far, on disk: a folder per step, named by the step's key.

A folder appears by renaming, and step.json has the digest of the model beside it: after `kill -9`
a result is there whole or not at all, and one that was damaged since is made again. While a step
runs its own work stands beside it. One process at a time. Knows no steps.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import DeviceError, FormatError

from ..calibrate.work import make_folder
from ..export.whole import whole_directory

VERSION = 1
KEY_DIGITS = 32
RECORD = "step.json"
_TIME, _WORK, _TEMPORARY = "seconds", ".work", ".tmp"
_SECONDS_BETWEEN_NOTES = 1.0


@dataclass(frozen=True)
class Record:
    """A step that was done. model: its name in the folder. digest: of what it holds. seconds: of
    all attempts."""

    key: str
    model: str
    digest: str
    seconds: float
    tokens: int
    figures: dict[str, Any]
    warnings: list[str]


class StepStore:
    """Of a folder, while locked() holds it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        make_folder(root)

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """DeviceError where another process works there; wait: until it has ended. Removes what a
        killed one left."""
        from filelock import FileLock, Timeout

        lock = FileLock(self._root / "lock")
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            message = f"{self._root}: another process works there; let it finish, or end it"
            raise DeviceError(message, code="store_busy") from None
        try:
            self._tidy()
            yield
        finally:
            lock.release()

    def _tidy(self) -> None:
        """What a killed process left: half a step, and the work of a step that is whole."""
        left = list(self._root.glob(f".*{_TEMPORARY}"))
        works = self._root.glob(f"*{_WORK}")
        left += [work for work in works if work.with_name(work.name.removesuffix(_WORK)).exists()]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)

    def find(self, name: str, key: str) -> tuple[Record, Path] | None:
        """The step of this key and its model; None where it was not done, or is damaged."""
        folder = self._folder(name, key)
        try:
            value = json.loads((folder / RECORD).read_bytes())
            if value.pop("version") != VERSION:
                return None
            record = Record(**value)
            model = folder / record.model
            is_whole = record.key == key and digest_of(model) == record.digest
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        except FormatError:  # the model is gone
            return None
        return (record, model) if is_whole else None

    def work(self, name: str, key: str) -> Path:
        """The folder of a step that is being done; what an earlier attempt left is in it."""
        folder = self._beside(name, key)
        make_folder(folder)
        return folder

    @contextmanager
    def new(self, name: str, key: str) -> Iterator[Path]:
        """A folder to make a step's model in; it becomes the step when the block ends."""
        folder = self._folder(name, key)
        if folder.exists():  # damaged: what is whole is not made again
            shutil.rmtree(folder)
        with whole_directory(folder) as temporary:
            yield temporary
        shutil.rmtree(self._beside(name, key), ignore_errors=True)

    def measured(self, key: str) -> dict[str, Any] | None:
        """What note_measured() was given; None where it was not."""
        try:
            value = json.loads(self._measured(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def note_measured(self, key: str, value: dict[str, Any]) -> None:
        path = self._measured(key)
        shutil.rmtree(path.parent, ignore_errors=True)  # damaged
        with whole_directory(path.parent) as folder:
            (folder / path.name).write_text(json.dumps(value), encoding="utf-8")

    def _folder(self, name: str, key: str) -> Path:
        return self._root / f"{name}-{key[:KEY_DIGITS]}"

    def _beside(self, name: str, key: str) -> Path:
        return self._root / f"{name}-{key[:KEY_DIGITS]}{_WORK}"

    def _measured(self, key: str) -> Path:
        return self._root / f"measured-{key[:KEY_DIGITS]}" / "figures.json"


def write_record(folder: Path, record: Record) -> None:
    value = {"version": VERSION, **asdict(record)}
    (folder / RECORD).write_text(json.dumps(value, indent=1), encoding="utf-8")


class Spent:
    """Seconds of all attempts at a step: those of earlier ones stand in its work folder, as they
    were last noted."""

    def __init__(self, work: Path) -> None:
        self._path = work / _TIME
        self._begin = self._noted = time.monotonic()
        try:
            self._before = float(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            self._before = 0.0

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._begin

    def note(self) -> None:
        """Now and then, while the step runs."""
        now = time.monotonic()
        if now - self._noted < _SECONDS_BETWEEN_NOTES:
            return
        self._noted = now
        temporary = self._path.with_suffix(_TEMPORARY)
        temporary.write_text(repr(self.seconds), encoding="ascii")
        temporary.replace(self._path)


def digest_of(path: Path) -> str:
    """SHA-256 of a file; of a directory over the names and digests of all files in it. FormatError
    where it cannot be read."""
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        files = sorted(one for one in path.rglob("*") if one.is_file())
        named = {one.relative_to(path).as_posix(): digest_of(one) for one in files}
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", code="file_not_found") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()
