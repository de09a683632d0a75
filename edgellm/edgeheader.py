"""The header of a `.edge` file: its tables, its encoding and every rule of the reader.

Works on bytes already read; files are edgefile.py's matter. docs/FORMAT.md is the specification and
native/src/format/edge_file.cc the other implementation; a defect has the same code in both.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .errors import EdgeError, FormatError, IntegrityError, UnsupportedError
from .strict_json import Json, parse_json

VERSION = "0"
FEATURES: frozenset[str] = frozenset()  # names of edgellm.requires that this reader understands
MAX_HEADER_BYTES = 100 << 20
MAX_TENSORS = 65536
MAX_SIZE = 1 << 48
DATA_ALIGNMENT = 16384
BLOB_ALIGNMENT = 64
LEAF_BYTES = 1 << 20
HASHES_NAME = "edgellm.hashes"
COPY_AGAIN = "if the file was cut off, copy or convert it again"

# Weight formats in R16 tiles (16 rows x 32 k): name -> (k per scale byte, bytes per tile, bytes of
# a strip for every 8 tiles besides).
FORMATS: dict[str, tuple[int, int, int]] = {
    "E2_16": (16, 160, 0),
    "E3_32": (32, 208, 0),
    "E4_16": (16, 288, 0),
    "E4_32": (32, 272, 0),
    "E6_16": (16, 416, 0),
    "E8_32": (32, 528, 0),
    "K4_32": (32, 288, 64),
    "L4_32": (32, 304, 0),
    "L8_32": (32, 544, 0),
    "F16": (0, 1024, 0),
}
PLAIN_FORMATS: dict[str, int] = {"F32": 4, "U8": 1}  # one-dimensional: name -> bytes per element
ACTS = ("a8", "f32", "a8x2")

_DIGEST_FIELD = b'"edgellm.header_sha256":"'
_NAME = re.compile(r"[A-Za-z0-9._/-]{1,255}")
_ROLE = re.compile(r"[a-z0-9_]{1,64}")


def round_up(n: int, unit: int) -> int:
    """The smallest multiple of unit that is >= n."""
    return -(-n // unit) * unit


def tensor_bytes(format: str, rows: int, cols: int) -> int:
    """Bytes of a [rows, cols] tensor without the padding to 64; a vector has rows = 1."""
    if format in PLAIN_FORMATS:
        return rows * cols * PLAIN_FORMATS[format]
    _, tile_bytes, head_bytes = FORMATS[format]
    n_tiles = -(-cols // 32)
    return (64 + -(-n_tiles // 8) * head_bytes + n_tiles * tile_bytes) * -(-rows // 16)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the header says of one tensor."""

    name: str
    role: str
    format: str
    shape: tuple[int, ...]  # logical: (rows, cols) of a matrix, (n,) of F32 and U8
    act: str | None  # of matrices: how they want their activations
    offset: int  # from the data start

    @property
    def n_bytes(self) -> int:
        rows, cols = self.shape if len(self.shape) == 2 else (1, self.shape[0])
        return tensor_bytes(self.format, rows, cols)

    @property
    def stored_bytes(self) -> int:
        return round_up(self.n_bytes, BLOB_ALIGNMENT)


@dataclass(frozen=True, slots=True)
class EdgeHeader:
    """A checked header; read_tensor() takes it in place of the path."""

    path: Path
    version: str
    requires: tuple[str, ...]
    spec: dict[str, Json]
    source: dict[str, Json] | None
    tensors: dict[str, TensorInfo]  # in file order, edgellm.hashes last
    metadata: dict[str, str]  # everything in __metadata__, as stored
    root: str  # 64 hex digits: the identity of the content
    data_start: int
    file_bytes: int


def hash_root(stored_hashes: bytes, n_hashed: int) -> str:
    """The root over the stored bytes of edgellm.hashes, its padding included."""
    return hashlib.sha256(stored_hashes + struct.pack("<Q", n_hashed)).hexdigest()


def header_digest(prefix: bytes, header: bytes, digits_at: int) -> str:
    """SHA-256 of the length and the header with its own 64 digits zeroed."""
    zeroed = header[:digits_at] + b"0" * 64 + header[digits_at + 64 :]
    return hashlib.sha256(prefix + zeroed).hexdigest()


def tensor_defect(info: TensorInfo) -> EdgeError | None:
    """What is wrong with a tensor's description, if anything."""
    if not _NAME.fullmatch(info.name):
        return FormatError("names are 1 to 255 of A-Z a-z 0-9 . _ / -", "tensor_name")
    if not _ROLE.fullmatch(info.role):
        return FormatError(f"role {info.role[:80]!r} is not 1 to 64 of a-z 0-9 _", "tensor_role")
    if info.format not in FORMATS and info.format not in PLAIN_FORMATS:
        return FormatError(f"unknown format {info.format[:80]!r}", "tensor_format")
    n_dims = 2 if info.format in FORMATS else 1
    if len(info.shape) != n_dims:
        return FormatError(f"{info.format} has {n_dims} dimensions", "tensor_shape")
    if not all(1 <= n <= MAX_SIZE for n in info.shape):
        return FormatError(f"dimensions must be 1 to 2**48, not {info.shape}", "tensor_shape")
    if info.stored_bytes > MAX_SIZE:
        return FormatError(f"shape {info.shape} is larger than 2**48 bytes", "tensor_shape")
    if n_dims == 1 and info.act is not None:
        return FormatError(f"{info.format} tensors have no act", "json_unknown_key")
    if n_dims == 2 and info.act is None:
        return FormatError("matrices need an act", "json_missing_key")
    if n_dims == 2 and info.act not in ACTS:
        return UnsupportedError(f"unknown act {str(info.act)[:80]!r}", "tensor_act")
    return None


def header_text(
    tensors: Mapping[str, TensorInfo],
    *,
    spec: str,
    requires: Sequence[str],
    source: str | None,
    metadata: Mapping[str, str],
    root: str,
) -> bytes:
    """The header's JSON, not yet padded and with its digest still zero."""
    described: dict[str, object] = {}
    for t in tensors.values():
        described[t.name] = {"role": t.role, "format": t.format, "shape": list(t.shape)}
        if t.act is not None:
            described[t.name] = {**cast(dict[str, object], described[t.name]), "act": t.act}
    meta = {
        "edgellm.version": VERSION,
        "edgellm.header_sha256": "0" * 64,
        "edgellm.root": root,
        "edgellm.requires": json.dumps(list(requires), separators=(",", ":")),
        "edgellm.spec": spec,
        "edgellm.tensors": json.dumps(described, separators=(",", ":")),
    }
    if source is not None:
        meta["edgellm.source"] = source
    meta.update(metadata)
    document: dict[str, object] = {"__metadata__": meta}
    for t in tensors.values():
        document[t.name] = {
            "dtype": "U8",
            "shape": [t.stored_bytes],
            "data_offsets": [t.offset, t.offset + t.stored_bytes],
        }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def seal_header(text: bytes, data_start: int) -> bytes:
    """Length and header, data_start bytes long, with the digest filled in."""
    if 8 + len(text) > data_start:
        raise FormatError(
            f"header of {len(text)} bytes does not fit the {data_start - 8} kept for it;"
            " raise reserve_bytes",
            "header_too_large",
        )
    header = text.ljust(data_start - 8, b" ")
    prefix = struct.pack("<Q", len(header))
    digits_at = header.index(_DIGEST_FIELD) + len(_DIGEST_FIELD)
    digest = header_digest(prefix, header, digits_at).encode("ascii")
    return prefix + header[:digits_at] + digest + header[digits_at + 64 :]


def parse_header(path: Path, prefix: bytes, raw: bytes, file_bytes: int) -> EdgeHeader:
    """Checks every rule that needs no data; see docs/FORMAT.md for their order."""
    if raw[:1] != b"{":
        raise FormatError(f"{path}: the header does not start with '{{'", "not_an_edge_file")
    data_start = 8 + len(raw)
    document = _object(parse_json(raw, f"{path}: header"), f"{path}: header")
    metadata = _metadata(document, str(path))
    _check_digest(metadata, prefix, raw, str(path))
    requires = _requires(metadata, str(path))
    if data_start % DATA_ALIGNMENT:
        raise FormatError(
            f"{path}: data starts at {data_start}, not a multiple of {DATA_ALIGNMENT}",
            "data_misaligned",
        )
    tensors = _tensors(document, metadata, file_bytes - data_start, str(path))
    spec = parse_json(metadata["edgellm.spec"], f"{path}: edgellm.spec")
    if not isinstance(spec, dict):
        raise FormatError(f"{path}: edgellm.spec is not an object", "spec_invalid")
    source: dict[str, Json] | None = None
    if "edgellm.source" in metadata:
        where = f"{path}: edgellm.source"
        source = _object(parse_json(metadata["edgellm.source"], where), where)
    return EdgeHeader(
        path=path,
        version=metadata["edgellm.version"],
        requires=requires,
        spec=spec,
        source=source,
        tensors=tensors,
        metadata=metadata,
        root=metadata["edgellm.root"],
        data_start=data_start,
        file_bytes=file_bytes,
    )


def _object(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise FormatError(f"{where} is not an object", "json_type")
    return value


def _metadata(document: dict[str, Json], where: str) -> dict[str, str]:
    if "__metadata__" not in document:
        raise FormatError(f"{where}: no __metadata__; not an .edge file", "not_an_edge_file")
    stored = _object(document["__metadata__"], f"{where}: __metadata__")
    for key, value in stored.items():
        if not isinstance(value, str):
            raise FormatError(f"{where}: __metadata__[{key[:80]!r}] is not a string", "json_type")
    metadata = cast(dict[str, str], stored)
    if "edgellm.version" not in metadata:
        raise FormatError(f"{where}: no edgellm.version; not an .edge file", "not_an_edge_file")
    if metadata["edgellm.version"] != VERSION:
        raise UnsupportedError(
            f"{where}: format version {metadata['edgellm.version'][:80]!r}, this reader knows"
            f" {VERSION!r}; upgrade edgellm or convert again",
            "version_unsupported",
        )
    for key in ("header_sha256", "root", "requires", "spec", "tensors"):
        if f"edgellm.{key}" not in metadata:
            raise FormatError(f"{where}: no edgellm.{key} in __metadata__", "json_missing_key")
    return metadata


def _check_digest(metadata: dict[str, str], prefix: bytes, raw: bytes, where: str) -> None:
    want = metadata["edgellm.header_sha256"]
    digits_at = raw.find(_DIGEST_FIELD) + len(_DIGEST_FIELD)
    stored = raw[digits_at : digits_at + 64]
    if raw.count(_DIGEST_FIELD) != 1 or stored != want.encode():
        raise IntegrityError(f"{where}: edgellm.header_sha256 is not 64 hex digits", "header_hash")
    if header_digest(prefix, raw, digits_at) != want:
        raise IntegrityError(f"{where}: the header is damaged; get the file again", "header_hash")


def _requires(metadata: dict[str, str], where: str) -> tuple[str, ...]:
    names = parse_json(metadata["edgellm.requires"], f"{where}: edgellm.requires")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"{where}: edgellm.requires is not a list of strings", "json_type")
    for name in cast(list[str], names):
        if name not in FEATURES:
            raise UnsupportedError(
                f"{where}: needs feature {name[:80]!r}, unknown here; upgrade edgellm",
                "feature_unsupported",
            )
    return tuple(cast(list[str], names))


def _tensors(
    document: dict[str, Json], metadata: dict[str, str], data_bytes: int, where: str
) -> dict[str, TensorInfo]:
    if len(document) - 1 > MAX_TENSORS:
        raise FormatError(f"{where}: more than {MAX_TENSORS} tensors", "too_many_tensors")
    described = _object(
        parse_json(metadata["edgellm.tensors"], f"{where}: edgellm.tensors"),
        f"{where}: edgellm.tensors",
    )
    for name in described:
        if name not in document or name == "__metadata__":
            raise FormatError(f"{where}: tensor {name[:80]!r} has no data entry", "tensor_missing")
    tensors = []
    for name, entry in document.items():
        if name == "__metadata__":
            continue
        at = f"{where}: tensor {name[:80]!r}"
        if name not in described:
            raise FormatError(f"{at} is not in edgellm.tensors", "tensor_unexpected")
        tensors.append(_tensor(name, _object(entry, at), _object(described[name], at), at))
    tensors.sort(key=lambda t: t.offset)
    end = 0
    for t in tensors:
        at = f"{where}: tensor {t.name!r}"
        if t.offset < end:
            raise FormatError(f"{at} starts at {t.offset}, inside another", "tensor_overlap")
        if t.offset > end:
            raise FormatError(f"{at} starts at {t.offset}, after a hole at {end}", "tensor_hole")
        end = t.offset + t.stored_bytes
        if end > data_bytes:
            raise FormatError(
                f"{at} ends {end - data_bytes} bytes past the end; {COPY_AGAIN}",
                "tensor_past_end",
            )
    if end < data_bytes:
        raise FormatError(f"{where}: {data_bytes - end} bytes after the data", "trailing_bytes")
    _check_hashes(tensors, where)
    return {t.name: t for t in tensors}


def _tensor(name: str, entry: dict[str, Json], row: dict[str, Json], at: str) -> TensorInfo:
    _only_keys(entry, ("dtype", "shape", "data_offsets"), (), at)
    _only_keys(row, ("role", "format", "shape"), ("act",), at)
    if not isinstance(entry["dtype"], str):
        raise FormatError(f"{at}: dtype is not a string", "json_type")
    if entry["dtype"] != "U8":
        raise FormatError(f"{at}: dtype {entry['dtype'][:80]!r}, must be U8", "tensor_dtype")
    stored_shape = _ints(entry["shape"], f"{at}: shape")
    offsets = _ints(entry["data_offsets"], f"{at}: data_offsets")
    for key in ("role", "format", "act"):
        if not isinstance(row.get(key, ""), str):
            raise FormatError(f"{at}: {key} is not a string", "json_type")
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1] <= MAX_SIZE:
        raise FormatError(f"{at}: data_offsets {offsets[:4]} are no range", "tensor_offsets")
    info = TensorInfo(
        name=name,
        role=cast(str, row["role"]),
        format=cast(str, row["format"]),
        shape=tuple(_ints(row["shape"], f"{at}: shape")),
        act=cast(str | None, row.get("act")),
        offset=offsets[0],
    )
    if defect := tensor_defect(info):
        raise type(defect)(f"{at}: {defect.message}", defect.code)
    if stored_shape != [info.stored_bytes]:
        raise FormatError(
            f"{at}: stored shape {stored_shape[:4]}, must be [{info.stored_bytes}]", "tensor_shape"
        )
    if offsets[1] - offsets[0] != info.stored_bytes:
        raise FormatError(
            f"{at}: {offsets[1] - offsets[0]} bytes of data, shape needs {info.stored_bytes}",
            "tensor_offsets",
        )
    return info


def _only_keys(
    members: dict[str, Json], needed: tuple[str, ...], optional: tuple[str, ...], at: str
) -> None:
    for key in members:
        if key not in needed and key not in optional:
            raise FormatError(f"{at}: unknown key {key[:80]!r}", "json_unknown_key")
    for key in needed:
        if key not in members:
            raise FormatError(f"{at}: no {key}", "json_missing_key")


def _ints(value: Json, where: str) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int for n in value):
        raise FormatError(f"{where} is not a list of integers", "json_type")
    return cast(list[int], value)


def _check_hashes(tensors: list[TensorInfo], where: str) -> None:
    last = tensors[-1] if tensors else None
    if last is None or last.name != HASHES_NAME:
        raise FormatError(f"{where}: the last tensor is not {HASHES_NAME}", "tensor_missing")
    if last.role != "hashes" or last.format != "U8":
        raise FormatError(f"{where}: {HASHES_NAME} must be U8 with role 'hashes'", "tensor_role")
    n_leaves = -(-last.offset // LEAF_BYTES)
    if last.shape != (32 * n_leaves,):
        raise FormatError(f"{where}: {HASHES_NAME} must hold {n_leaves} hashes", "tensor_shape")
