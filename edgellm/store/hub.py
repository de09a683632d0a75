"""The hub: what a model there consists of, and its files, through huggingface_hub.

The only module that opens connections, and only when `edgellm pull` calls it. What a hub says is
untrusted: names, sizes and digests are checked before use, and a file is only as long as announced
and only what its digest says. Needs the extra "hub".
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, BinaryIO

from .. import __version__
from ..errors import DeviceError, EdgeError, FormatError, IntegrityError, UnsupportedError
from .hf_cache import find_blob, is_offline
from .names import HubName
from .sources import PART_FILE

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,199}}|{PART_FILE.pattern}")
_CHUNK_BYTES = 1 << 20
_RANGE_NOT_SATISFIABLE = 416
_TIMEOUT_S = 30.0
OnBytes = Callable[[int], None]  # bytes of the file that are there


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: in its top folder, or FOLDER/config.json.

    sha256: of large ones; git_sha1: of the others.
    """

    name: str
    n_bytes: int
    sha256: str | None
    git_sha1: str | None

    @property
    def digest(self) -> str:
        return self.sha256 or f"git:{self.git_sha1}"


@dataclass(frozen=True)
class HubModel:
    """One commit of a repository. Files whose name or digest is none are left out."""

    hub_name: HubName
    commit: str
    files: tuple[HubFile, ...]

    @property
    def origin(self) -> str:
        return f"hub:{self.hub_name.name}@{self.commit}"


def look_up(hub_name: HubName) -> HubModel:
    """Asks the hub (HF_ENDPOINT, HF_TOKEN) what a model consists of."""
    hub = _huggingface_hub()
    with _explained(hub, str(hub_name)):
        info = hub.HfApi(
            endpoint=_endpoint(), library_name="edgellm", library_version=__version__
        ).model_info(
            hub_name.name, revision=hub_name.revision, files_metadata=True, timeout=_TIMEOUT_S
        )
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise FormatError(f"{hub_name}: the hub names no commit", code="hub_answer")
    files = [file for sibling in info.siblings or [] if (file := _file(sibling)) is not None]
    return HubModel(hub_name, commit, tuple(sorted(files, key=lambda file: file.name)))


def fetch(model: HubModel, file: HubFile, directory: Path, on_bytes: OnBytes) -> Path:
    """Gets one file into `directory`, from the Hugging Face cache where that has it, else from the
    hub, going on where an earlier call ended, and checks its digest.

    The file appears under its name when it is whole and right; before, as NAME.part. DeviceError if
    the connection fails for good: what came stays. IntegrityError: what came is deleted.
    """
    target, part = directory / file.name, directory / f"{file.name}.part"
    if target.exists():
        on_bytes(file.n_bytes)
        return target
    target.parent.mkdir(exist_ok=True)
    if _taken_from_cache(model, file, target):
        part.unlink(missing_ok=True)
        on_bytes(file.n_bytes)
        return target
    hub = _huggingface_hub()
    where = f"{model.hub_name}: {file.name}"
    with part.open("r+b" if part.exists() else "x+b") as out:
        if out.seek(0, os.SEEK_END) > file.n_bytes:
            out.truncate(0)
        with _explained(hub, where), _quiet():
            _download(hub, model, file, out, on_bytes)
        out.flush()
        os.fsync(out.fileno())
        right = _has_digest(out, file)
    if not right:
        part.unlink()
        message = (
            f"{where}: what came is not what the hub announced (its digest differs); pull again; "
            "if that does not help, somebody between the hub and you changes files"
        )
        raise IntegrityError(message, code="hub_digest")
    os.replace(part, target)
    return target


def fetch_beginning(model: HubModel, file: HubFile, directory: Path, n_bytes: int) -> Path:
    """A path that holds at least the first n_bytes of a file, or all of a shorter one: where
    fetch() will go on. Nothing is checked yet. DeviceError as in fetch()."""
    target, part = directory / file.name, directory / f"{file.name}.part"
    source = target if target.exists() else cached(model, file)
    if source is not None:
        return source
    hub = _huggingface_hub()
    wanted = min(n_bytes, file.n_bytes)
    with part.open("r+b" if part.exists() else "x+b") as out:
        if out.seek(0, os.SEEK_END) < wanted:
            with _explained(hub, f"{model.hub_name}: {file.name}"), _quiet(), suppress(_Enough):
                _download(hub, model, file, out, lambda _: None, wanted)
    return part


def cached(model: HubModel, file: HubFile) -> Path | None:
    """The file in the Hugging Face cache, its digest not checked."""
    return find_blob(model.hub_name, file.sha256 or file.git_sha1 or "", file.n_bytes)


def _taken_from_cache(model: HubModel, file: HubFile, target: Path) -> bool:
    """A copy, which the file system may share: the store must not change with the cache."""
    found = cached(model, file)
    if found is None:
        return False
    copy = target.with_name(f"{target.name}.copy")
    try:
        shutil.copyfile(found, copy)
        with copy.open("rb") as out:
            right = _has_digest(out, file)
            os.fsync(out.fileno())
        if right:
            os.replace(copy, target)
        return right
    except OSError:
        return False  # the hub has it, too
    finally:
        copy.unlink(missing_ok=True)


class _Enough(Exception):
    """As many bytes as were wanted are there."""


def _download(
    hub: ModuleType,
    model: HubModel,
    file: HubFile,
    out: BinaryIO,
    on_bytes: OnBytes,
    wanted: int | None = None,
) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    name = model.hub_name.name
    url = hub.hf_hub_url(name, file.name, revision=model.commit, endpoint=_endpoint())
    headers = build_hf_headers(library_name="edgellm", library_version=__version__)
    headers["Accept-Encoding"] = "identity"
    for again in (False, True):
        have = out.seek(0, os.SEEK_END)
        try:
            http_get(
                url,
                _Capped(out, file, on_bytes, wanted),
                resume_size=have,
                headers=headers,
                expected_size=file.n_bytes,
                displayed_filename=file.name,
                tqdm_class=_NoBar,
            )
            return
        except hub.errors.HfHubHTTPError as error:
            if again or not have or error.response.status_code != _RANGE_NOT_SATISFIABLE:
                raise
            out.truncate(0)  # the hub has no such range: begin anew


class _Capped:
    """The file that is written to, which takes no byte more than was announced, and no more once
    it has as many as are wanted."""

    def __init__(self, out: BinaryIO, file: HubFile, on_bytes: OnBytes, wanted: int | None) -> None:
        self._out = out
        self._wanted = wanted
        self._file = file
        self._on_bytes = on_bytes

    def write(self, data: bytes) -> int:
        at = self._out.tell()
        if at + len(data) > self._file.n_bytes:
            message = f"{self._file.name}: the hub sends more than the {self._file.n_bytes} bytes"
            self._out.truncate(0)
            raise IntegrityError(f"{message} that it announced; pull again", code="hub_digest")
        try:
            n_written = self._out.write(data)
            self._out.flush()
        except OSError as error:
            message = f"{self._file.name}: cannot be written: {error.strerror}; what came is kept"
            raise FormatError(message, code="file_write_failed") from error
        self._on_bytes(at + n_written)
        if self._wanted is not None and at + n_written >= self._wanted:
            raise _Enough
        return n_written

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._out.seek(offset, whence)

    def tell(self) -> int:
        return self._out.tell()

    def truncate(self, size: int | None = None) -> int:
        return self._out.truncate(size)


class _NoBar:
    """In the place of a tqdm bar: progress is shown by whoever asked for the file."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def update(self, n_bytes: float | None = 1) -> None:
        pass


def _has_digest(out: BinaryIO, file: HubFile) -> bool:
    """SHA-256 of large files, git's SHA-1 of a blob for the others, as hubs give them."""
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(usedforsecurity=False)
    if not file.sha256:
        digest.update(b"blob %d\0" % file.n_bytes)
    out.seek(0)
    while chunk := out.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.git_sha1)


def _file(sibling: Any) -> HubFile | None:
    """A file of the answer, if it is one that could be wanted."""
    name, size, blob, lfs = sibling.rfilename, sibling.size, sibling.blob_id, sibling.lfs
    sha256 = None if lfs is None else lfs.sha256
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return None
    if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
        return HubFile(name, size, sha256, None)
    if sha256 is None and isinstance(blob, str) and _COMMIT.fullmatch(blob):
        return HubFile(name, size, None, blob)
    return None


def _endpoint() -> str | None:
    """Read when it is used: huggingface_hub reads it when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _huggingface_hub() -> ModuleType:
    if is_offline():
        message = "HF_HUB_OFFLINE forbids downloads; unset it, or give a file that is here already"
        raise UnsupportedError(message, code="hub_offline")
    try:
        for part in ("errors", "constants"):
            importlib.import_module(f"huggingface_hub.{part}")
    except ModuleNotFoundError as error:
        package = (error.name or "huggingface_hub").partition(".")[0]
        message = f"downloading needs {package}: pip install 'edgellm[hub]'"
        raise UnsupportedError(message, code="feature_unsupported") from error
    hub = sys.modules["huggingface_hub"]
    # It would tell the hub, and ask it once a day, what program of what kind is running.
    hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return hub


@contextmanager
def _quiet() -> Iterator[None]:
    """huggingface_hub logs every retry to stderr, with whatever text the hub has sent."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _explained(hub: ModuleType, what: str) -> Iterator[None]:
    """The library's errors as ours: what, where, and what to do."""
    errors = hub.errors
    where = _endpoint() or hub.constants.ENDPOINT
    try:
        yield
    except EdgeError:
        raise
    except errors.GatedRepoError:
        message = (
            f"{what} is gated: accept its terms on its page at {where}, then set HF_TOKEN to a "
            "token of that account"
        )
        raise UnsupportedError(message, code="hub_gated") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        kind = "revision" if isinstance(error, errors.RevisionNotFoundError) else "model"
        message = (
            f"{what}: {where} has no such {kind}, or it is private: check the spelling; HF_TOKEN "
            "is needed for private models"
        )
        raise FormatError(message, code="hub_not_found") from None
    except errors.EntryNotFoundError:
        message = f"{what}: {where} lists this file but does not have it; pull again"
        raise FormatError(message, code="hub_not_found") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            message = f"{what}: {where} refuses (status {status}); set HF_TOKEN to a token that may"
            raise UnsupportedError(message, code="hub_refused") from None
        message = f"{what}: {where} answers with status {status}; try again later"
        raise DeviceError(message, code="hub_failed") from None
    except errors.HFValidationError as error:
        raise FormatError(f"{what}: {error}", code="store_name") from None
    except (OSError, ValueError, errors.HfHubHTTPError.__bases__[0]) as error:
        message = (
            f"{what}: no whole answer from {where} ({type(error).__name__}: {str(error)[:200]}); "
            "pull again: what has come is kept"
        )
        raise DeviceError(message, code="hub_unreachable") from None
