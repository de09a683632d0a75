"""The index of a fleet: for every device class the releases of every model, and where files are.

A value, read strictly: keys, types, ranges and names are checked, so that nothing in an index can
become a path outside its folder. `index_bytes` writes what `parse_index` reads, the same bytes for
the same value. Nothing here knows of signatures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

from ..errors import FormatError
from ..strict_json import Json, parse_json

FORMAT = "edgellm-fleet-1"
MAX_INDEX_BYTES = 16 << 20
MAX_FILE_BYTES = 1 << 48
MAX_REVOKED = 65536
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-[0-9A-Za-z.-]{{1,32}})?")
T = TypeVar("T")


@dataclass(frozen=True)
class FileRef:
    """A file of the artefacts. name: FOLDER/FILE in a plain directory; an OCI layout has it under
    its digest."""

    name: str
    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class Quality:
    """Of a variant on held-out text. kl: KL(source || variant), nats per token, top1: share of
    tokens with the same best guess; both None where its tokens are not the source's. loss: nats."""

    kl: float | None
    top1: float | None
    loss: float


@dataclass(frozen=True)
class Variant:
    """A file for a device class. header_sha256: the file's identity in a store. memory_bytes: that
    it needs with a context of `context` tokens and keys and values as `kv`. tokens_per_s: that are
    predicted, None: not known."""

    recipe: str
    file: FileRef
    header_sha256: str
    chunks: FileRef
    provenance: FileRef
    signature: FileRef | None
    memory_bytes: int
    context: int
    kv: str
    tokens_per_s: float | None
    quality: Quality | None

    @property
    def files(self) -> tuple[FileRef, ...]:
        refs = (self.file, self.chunks, self.provenance, self.signature)
        return tuple(one for one in refs if one is not None)


@dataclass(frozen=True)
class Release:
    """A version of a model, for so many of 100 devices; variants in order of preference."""

    version: str
    canary_percent: int
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class FleetIndex:
    """sequence: grows with every index. expires: a time of UTC, "": never. revoked: SHA-256 of
    files that nobody may run any more. devices: class -> model -> releases, the newest first."""

    name: str
    sequence: int
    expires: str
    revoked: tuple[str, ...]
    devices: Mapping[str, Mapping[str, tuple[Release, ...]]]

    def releases(self, device: str, model: str) -> tuple[Release, ...]:
        """FormatError that names what there is."""
        models = _known(self.devices, device, f"{self.name}: no device class")
        return _known(models, model, f"{self.name}: for {device} no model")

    def files(self) -> list[FileRef]:
        """Every file that it names, once."""
        found = {
            one.sha256: one
            for models in self.devices.values()
            for releases in models.values()
            for release in releases
            for variant in release.variants
            for one in variant.files
        }
        return list(found.values())


def index_bytes(index: FleetIndex) -> bytes:
    """One text for one value: sorted keys, no time of making."""
    document = {"format": FORMAT, **asdict(index)}
    return (json.dumps(document, sort_keys=True, indent=1) + "\n").encode("ascii")


def parse_index(data: bytes, where: str) -> FleetIndex:
    """FormatError says where and what."""
    if len(data) > MAX_INDEX_BYTES:
        raise _bad(where, f"larger than {MAX_INDEX_BYTES} bytes")
    reader = _Reader(where)
    value = reader.table(parse_json(data, where), "", ("format", *_keys(FleetIndex)))
    if value["format"] != FORMAT:
        raise _bad(where, f"format {str(value['format'])[:80]!r}, but this edgellm knows {FORMAT}")
    devices = {
        reader.text(device, "devices", _NAME): {
            reader.text(model, device, _NAME): reader.many(releases, model, reader.release)
            for model, releases in reader.mapping(models, device).items()
        }
        for device, models in reader.mapping(value["devices"], "devices").items()
    }
    revoked = reader.many(value["revoked"], "revoked", lambda v, at: reader.text(v, at, _SHA256))
    if len(revoked) > MAX_REVOKED:
        raise _bad(where, f"{len(revoked)} files are revoked, {MAX_REVOKED} at most can be")
    return FleetIndex(
        reader.text(value["name"], "name", _NAME),
        reader.count(value["sequence"], "sequence", 1, (1 << 31) - 1),
        "" if value["expires"] == "" else reader.text(value["expires"], "expires", _TIME),
        revoked,
        devices,
    )


class _Reader:
    """Values of an index, checked. where: the document, at: the place in it."""

    def __init__(self, where: str) -> None:
        self._where = where

    def release(self, value: Json, at: str) -> Release:
        table = self.table(value, at, _keys(Release))
        variants = self.many(table["variants"], f"{at}.variants", self.variant)
        if not variants:
            raise _bad(self._where, f"{at}: a release without variants")
        version = self.text(table["version"], f"{at}.version", _VERSION)
        percent = self.count(table["canary_percent"], f"{at}.canary_percent", 0, 100)
        return Release(version, percent, variants)

    def variant(self, value: Json, at: str) -> Variant:
        table = self.table(value, at, _keys(Variant))
        signature, speed = table["signature"], table["tokens_per_s"]
        quality = table["quality"]
        return Variant(
            self.text(table["recipe"], f"{at}.recipe", _NAME),
            self.file(table["file"], f"{at}.file"),
            self.text(table["header_sha256"], f"{at}.header_sha256", _SHA256),
            self.file(table["chunks"], f"{at}.chunks"),
            self.file(table["provenance"], f"{at}.provenance"),
            None if signature is None else self.file(signature, f"{at}.signature"),
            self.count(table["memory_bytes"], f"{at}.memory_bytes", 0, MAX_FILE_BYTES),
            self.count(table["context"], f"{at}.context", 1, 1 << 24),
            self.text(table["kv"], f"{at}.kv", _NAME),
            None if speed is None else self.number(speed, f"{at}.tokens_per_s"),
            None if quality is None else self.quality(quality, f"{at}.quality"),
        )

    def quality(self, value: Json, at: str) -> Quality:
        table = self.table(value, at, _keys(Quality))
        kl, top1 = table["kl"], table["top1"]
        return Quality(
            None if kl is None else self.number(kl, f"{at}.kl"),
            None if top1 is None else self.number(top1, f"{at}.top1"),
            self.number(table["loss"], f"{at}.loss"),
        )

    def file(self, value: Json, at: str) -> FileRef:
        table = self.table(value, at, _keys(FileRef))
        return FileRef(
            self.text(table["name"], f"{at}.name", _FILE),
            self.text(table["sha256"], f"{at}.sha256", _SHA256),
            self.count(table["n_bytes"], f"{at}.n_bytes", 0, MAX_FILE_BYTES),
        )

    def table(self, value: Json, at: str, keys: tuple[str, ...]) -> dict[str, Json]:
        found = self.mapping(value, at)
        if found.keys() != set(keys):
            wrong = sorted(set(found) ^ set(keys))[0]
            raise _bad(self._where, f"{at or 'it'}: key {wrong[:80]!r} is missing, or not known")
        return found

    def mapping(self, value: Json, at: str) -> dict[str, Json]:
        if not isinstance(value, dict):
            raise _bad(self._where, f"{at or 'it'} is no object")
        return value

    def many(self, value: Json, at: str, read: Callable[[Json, str], T]) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _bad(self._where, f"{at} is no list")
        return tuple(read(one, f"{at}[{number}]") for number, one in enumerate(value))

    def text(self, value: Json, at: str, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _bad(self._where, f"{at}: {str(value)[:80]!r} cannot stand there")
        return value

    def count(self, value: Json, at: str, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _bad(self._where, f"{at} must be {least} to {most}")
        return value

    def number(self, value: Json, at: str) -> float:
        if type(value) not in (int, float):
            raise _bad(self._where, f"{at} is no number")
        return float(cast(float, value))


def _keys(cls: type[Any]) -> tuple[str, ...]:
    return tuple(cls.__dataclass_fields__)


def _known(table: Mapping[str, T], name: str, what: str) -> T:
    if name not in table:
        there = ", ".join(sorted(table)[:20]) or "none"
        raise FormatError(f"{what} {name[:80]!r}; it has {there}", code="fleet_unknown")
    return table[name]


def _bad(where: str, what: str) -> FormatError:
    return FormatError(f"{where}: {what}", code="fleet_index")
