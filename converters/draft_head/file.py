"""A head in its model's file: one blob that is a `.edge` file itself, so that a reader that knows
no heads passes it over, and one that does checks it by the rules of any file. docs/FORMAT.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgellm import _native
from edgellm.edgefile import EdgeHeader, EdgeWriter, read_tensor
from edgellm.edgeheader import HASHES_NAME, MAX_HEADER_BYTES, hash_root, parse_header
from edgellm.errors import FormatError, IntegrityError, UnsupportedError

from ..quant import quant_format
from ..quant.activations import ROUNDED_ACTS
from ..reference import decoded_weights
from ..spec import ModelSpec
from .shape import IDS, head_slots, head_spec

BLOB = "draft_head"
VERSION_KEY = "draft_head.version"
VERSION = "1"
_PREFIX_BYTES = 8


@dataclass(frozen=True)
class StoredHead:
    """weights: as decoded, float32. acts: of matrices whose inputs are rounded. ids: [n_vocab]
    int32, ascending."""

    spec: ModelSpec
    weights: dict[str, Tensor]
    acts: dict[str, str]
    ids: np.ndarray[Any, np.dtype[np.int32]]


def write_head(
    path: Path,
    spec: ModelSpec,
    weights: Mapping[str, Tensor],
    ids: np.ndarray[Any, np.dtype[np.int32]],
    format: str,
    n_threads: int,
) -> None:
    """The file that becomes the blob: matrices in `format`, rounded to nearest."""
    act = quant_format(format).default_act
    slots = head_slots(spec)
    metadata = {VERSION_KEY: VERSION}
    with EdgeWriter(path, spec=spec.to_dict(), metadata=metadata, reserve_bytes=0) as writer:
        writer.plan(IDS, IDS, format="U8", shape=(4 * spec.n_vocab,))
        for slot in slots:
            is_matrix = len(slot.shape) == 2
            writer.plan(
                slot.name,
                slot.role,
                format=format if is_matrix else "F32",
                shape=slot.shape,
                act=act if is_matrix else None,
            )
        writer.add(IDS, ids.astype("<i4").tobytes())
        for slot in slots:
            values = np.ascontiguousarray(weights[slot.name].detach().numpy())
            if len(slot.shape) == 1:
                writer.add(slot.name, values.astype("<f4").tobytes())
            else:
                writer.add(slot.name, _native.encode_tensor(format, values, None, n_threads).data)


def add_blob(header: EdgeHeader, out: Path, head: Path, how: Mapping[str, Any]) -> None:
    """The model's file with the head, or another one, in it; all else as it was. how: for the
    report."""
    left = [info for info in header.tensors.values() if info.name not in (HASHES_NAME, BLOB)]
    with EdgeWriter.like(header, out) as writer:
        for info in left:
            if info.name != "report":
                writer.plan(
                    info.name, info.role, format=info.format, shape=info.shape, act=info.act
                )
        for info in left:
            if info.name != "report":
                writer.add(info.name, read_tensor(header, info.name))
        writer.append("report", "report", _report(header, how))
        writer.append(BLOB, BLOB, head.read_bytes())
        if header.source is not None:
            writer.set_source(header.source)


def read_head(header: EdgeHeader) -> StoredHead:
    """Of a model's file. FormatError, IntegrityError and UnsupportedError, as for any file, for a
    blob that is none, and where it is not for this model."""
    target = ModelSpec.from_json(header.metadata["edgellm.spec"])
    return checked_head(_inner_header(header), target)


def checked_head(inner: EdgeHeader, target: ModelSpec) -> StoredHead:
    """Of what write_head() wrote, or a blob of that, for a model of this spec."""
    where = f"{inner.path}: {BLOB}"
    version = inner.metadata.get(VERSION_KEY)
    if version != VERSION:
        raise UnsupportedError(
            f"{where}: version {str(version)[:80]!r}, this reader knows '{VERSION}'; upgrade "
            "edgellm, or make the head again",
            code="version_unsupported",
        )
    spec = ModelSpec.from_json(inner.metadata["edgellm.spec"])
    if len(spec.layers) != 1 or head_spec(target, spec.n_vocab, spec.layers[0].d_ffn) != spec:
        raise FormatError(
            f"{where}: is for another model; make the head again", code="spec_invalid"
        )
    acts = _checked_tensors(inner, spec, where)
    ids = np.frombuffer(read_tensor(inner, IDS), dtype="<i4").astype(np.int32)
    rising = bool((np.diff(ids) > 0).all())
    if not rising or ids[0] < 0 or ids[-1] >= target.n_vocab:
        raise FormatError(
            f"{where}: its ids do not ascend within 0 to {target.n_vocab - 1}; make the head again",
            code="token_out_of_range",
        )
    return StoredHead(spec, decoded_weights(inner), acts, ids)


def _checked_tensors(inner: EdgeHeader, spec: ModelSpec, where: str) -> dict[str, str]:
    """-> the acts of the matrices whose inputs are rounded."""
    wanted = {slot.name: slot.shape for slot in head_slots(spec)}
    wanted[IDS] = (4 * spec.n_vocab,)
    for name, shape in wanted.items():
        info = inner.tensors.get(name)
        if info is None:
            raise FormatError(f"{where}: no tensor '{name}'", code="tensor_missing")
        if info.shape != shape:
            raise FormatError(
                f"{where}: tensor '{name}' is {list(info.shape)}, not {list(shape)}",
                code="tensor_shape",
            )
    for info in inner.tensors.values():
        if info.name not in wanted and info.name != HASHES_NAME:
            raise FormatError(f"{where}: no place for '{info.name}'", code="tensor_unexpected")
    return {t.name: t.act for t in inner.tensors.values() if t.act in ROUNDED_ACTS}


def _inner_header(header: EdgeHeader) -> EdgeHeader:
    """That of the blob, by which read_tensor() finds its tensors in the model's file."""
    blob = bytes(read_tensor(header, BLOB))
    where = header.path / BLOB
    n_header = int.from_bytes(blob[:_PREFIX_BYTES], "little")
    for is_wrong, code in (
        (len(blob) < _PREFIX_BYTES, "file_too_small"),
        (n_header > MAX_HEADER_BYTES, "header_too_large"),
        (len(blob) < _PREFIX_BYTES + n_header, "header_truncated"),
    ):
        if is_wrong:
            raise FormatError(f"{where}: {len(blob)} bytes; make the head again", code=code)
    raw = blob[_PREFIX_BYTES : _PREFIX_BYTES + n_header]
    inner = parse_header(where, blob[:_PREFIX_BYTES], raw, len(blob))
    hashes = inner.tensors[HASHES_NAME]
    begin = inner.data_start + hashes.offset
    if hash_root(blob[begin : begin + hashes.stored_bytes], hashes.offset) != inner.root:
        raise IntegrityError(
            f"{header.path}: {BLOB}: its hashes do not match its root", code="root_hash"
        )
    at = header.data_start + header.tensors[BLOB].offset
    return replace(
        inner, path=header.path, data_start=at + inner.data_start, file_bytes=header.file_bytes
    )


def _report(header: EdgeHeader, how: Mapping[str, Any]) -> bytes:
    """The converter's, if it is one, with the head's."""
    value: Any = {}
    if "report" in header.tensors:
        try:
            value = json.loads(bytes(read_tensor(header, "report")))
        except (ValueError, RecursionError):
            value = {}
    whole = {**(value if isinstance(value, dict) else {}), BLOB: dict(how)}
    return json.dumps(whole, separators=(",", ":")).encode()
