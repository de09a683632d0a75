"""Where the artefacts of a fleet are: a directory, plain or an OCI layout, here or behind a URL.

All that is read is small and checked by whoever asks, or a range of a file whose pieces are.
Nothing of an index becomes a path but names that index.py has checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ..errors import FormatError, IntegrityError, InvalidArgumentError
from ..strict_json import Json, parse_json
from .index import MAX_INDEX_BYTES, FileRef
from .signed import MAX_ENVELOPE_BYTES

INDEX, SIGNED_INDEX, OCI_LAYOUT = "index.json", "index.dsse.json", "oci-layout"
FLEET_TYPE = "application/vnd.edgellm.fleet.v1"
_MAX_DOCUMENT_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 20


class Reader(Protocol):
    """Files below a place. read: all of a file of at most so many bytes; FormatError
    (`file_not_found`) where there is none. stream: a range of one, in blocks."""

    def read(self, path: str, most: int) -> bytes: ...

    def stream(self, path: str, offset: int, n_bytes: int) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Artefacts:
    """location: a directory, a file:// or an http(s):// URL of one. A context manager: leaving the
    block closes the connection."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._reader = _reader(location)
        self._is_oci: bool | None = None

    def __enter__(self) -> Artefacts:
        return self

    def __exit__(self, *exc: object) -> None:
        self._reader.close()

    def index(self) -> bytes:
        """The index, not signed."""
        if not self.is_oci:
            return self._reader.read(INDEX, MAX_INDEX_BYTES)
        top = self._document(self._reader.read(INDEX, _MAX_DOCUMENT_BYTES), INDEX)
        for one in _rows(top, "manifests"):
            if one.get("artifactType") == FLEET_TYPE:
                manifest = self._document(self._blob(one, _MAX_DOCUMENT_BYTES), "manifest")
                layers = _rows(manifest, "layers")
                if len(layers) == 1:
                    return self._blob(layers[0], MAX_INDEX_BYTES)
        raise FormatError(f"{self.location}: no fleet in this OCI layout", code="fleet_index")

    def signed_index(self) -> bytes:
        """Its envelope."""
        return self._reader.read(SIGNED_INDEX, MAX_ENVELOPE_BYTES)

    def root(self, version: int) -> bytes | None:
        """The envelope of a root; None where there is none of this version yet."""
        try:
            return self._reader.read(f"roots/{version}.dsse.json", MAX_ENVELOPE_BYTES)
        except FormatError as error:
            if error.code == "file_not_found":
                return None
            raise

    def small(self, ref: FileRef, most: int) -> bytes:
        """A small file, which is what its reference says. IntegrityError where it is not."""
        if ref.n_bytes > most:
            message = f"{self.location}: {ref.name} has {ref.n_bytes} bytes, {most} are read"
            raise FormatError(message, code="json_too_large")
        data = self._reader.read(self._path(ref), ref.n_bytes)
        if len(data) != ref.n_bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise IntegrityError(
                f"{self.location}: {ref.name} is not what the index says; nothing of it is used",
                code="fleet_digest",
            )
        return data

    def stream(self, ref: FileRef, offset: int, n_bytes: int) -> Iterator[bytes]:
        """A range of a file, not checked. FormatError where it ends early."""
        n_left = n_bytes
        for block in self._reader.stream(self._path(ref), offset, n_bytes):
            n_left -= len(block)
            if n_left < 0:
                break
            yield block
        if n_left:
            message = f"{self.location}: {ref.name} is not as long as the index says"
            raise IntegrityError(message, code="fleet_digest")

    @property
    def is_oci(self) -> bool:
        if self._is_oci is None:
            try:
                self._reader.read(OCI_LAYOUT, 4096)
                self._is_oci = True
            except FormatError as error:
                if error.code != "file_not_found":
                    raise
                self._is_oci = False
        return self._is_oci

    def _path(self, ref: FileRef) -> str:
        return f"blobs/sha256/{ref.sha256}" if self.is_oci else ref.name

    def _blob(self, descriptor: dict[str, Json], most: int) -> bytes:
        digest, size = descriptor.get("digest"), descriptor.get("size")
        sha256 = str(digest).removeprefix("sha256:")
        is_digest = len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")
        if not is_digest or type(size) is not int or size < 0:
            raise FormatError(f"{self.location}: no OCI descriptor", code="fleet_index")
        return self.small(FileRef("blob", sha256, size), most)

    def _document(self, data: bytes, what: str) -> dict[str, Json]:
        value = parse_json(data, f"{self.location}: {what}")
        if not isinstance(value, dict):
            raise FormatError(f"{self.location}: {what} is no object", code="fleet_index")
        return value


def _rows(document: dict[str, Json], key: str) -> list[dict[str, Json]]:
    rows = document.get(key)
    return [one for one in rows if isinstance(one, dict)] if isinstance(rows, list) else []


def _reader(location: str) -> Reader:
    kind = urlsplit(location).scheme if "://" in location else ""
    if kind in ("http", "https"):
        from .remote import RemoteReader

        return RemoteReader(location)
    if kind == "file":
        parts = urlsplit(location)
        if parts.netloc not in ("", "localhost"):
            message = f"{location}: a file:// URL names a file of this machine"
            raise InvalidArgumentError(message, code="invalid_argument")
        return _Folder(Path(unquote(parts.path)))
    if kind:
        message = f"{location}: write a directory, or a file://, http:// or https:// URL of one"
        raise InvalidArgumentError(message, code="invalid_argument")
    return _Folder(Path(location))


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def close(self) -> None:
        """Nothing stays open."""

    def read(self, path: str, most: int) -> bytes:
        data = b"".join(self.stream(path, 0, most + 1))
        if len(data) > most:
            message = f"{self._folder / path}: larger than {most} bytes"
            raise FormatError(message, code="json_too_large")
        return data

    def stream(self, path: str, offset: int, n_bytes: int) -> Iterator[bytes]:
        file = self._folder / path
        try:
            if not file.resolve().is_relative_to(self._folder.resolve()):
                raise FormatError(f"{file}: leads out of the folder", code="file_unreadable")
            with file.open("rb", buffering=0) as handle:
                handle.seek(offset)
                while n_bytes and (block := handle.read(min(n_bytes, _BLOCK_BYTES))):
                    n_bytes -= len(block)
                    yield block
        except FileNotFoundError:
            what = "no such file" if self._folder.is_dir() else f"there is no {self._folder}"
            raise FormatError(f"{file}: {what}", code="file_not_found") from None
        except OSError as error:
            raise FormatError(f"{file}: cannot be read: {error}", "file_unreadable") from error
