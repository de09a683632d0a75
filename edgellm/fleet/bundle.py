"""Signatures of models: bundles of OpenSSF model-signing (OMS), verified offline with a known key.

A Sigstore bundle with a DSSE envelope around an in-toto statement, which lists every file by its
SHA-256. Only what `model_signing sign key` writes for ECDSA P-256 is read; bundles signed online
need a network to be trusted, and are refused. https://github.com/ossf/model-signing-spec

Bundles of one file that are made here list its shards as well, in a field of the predicate that
other verifiers leave alone, as version 1.0 of it asks them to: those are hashed at once.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError, IntegrityError
from ..strict_json import Json, parse_json
from .signed import Envelope, envelope_of, verify
from .signed_bytes import Shards, SignedBytes

MAX_BUNDLE_BYTES = 4 << 20
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SHARDS = "edgellm.shards"  # of the predicate: {"size", "n_bytes", "sha256": [of each, in order]}
PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def bundle_beside(path: Path) -> Path:
    """Where the bundle of a file stands."""
    return path.with_name(f"{path.name}.sig")


def verify_bundle(data: bytes, keys: Mapping[str, str], where: str) -> dict[str, SignedBytes]:
    """Files by name, and their bytes, that one of `keys` (id -> PEM) has signed."""
    envelope = _envelope(data, where)
    return _files(verify(envelope, PAYLOAD_TYPE, keys, 1, where), where)


def only_file(files: Mapping[str, SignedBytes], name: str, where: str) -> SignedBytes:
    """Of a bundle for one file: IntegrityError where it lists others. What the file was called when
    it was signed does not matter ("." for a lone one)."""
    if len(files) != 1:
        message = f"{where}: signs {len(files)} files, not {name} alone"
        raise IntegrityError(message, code="signature_files")
    return next(iter(files.values()))


def check_directory(files: Mapping[str, SignedBytes], folder: Path, where: str) -> None:
    """IntegrityError unless the files of `folder` are those of a bundle, no more and no fewer."""
    there: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            message = f"{path}: is no file of its own (a link?); such are not used"
            raise IntegrityError(message, code="signature_files")
        there[path.relative_to(folder).as_posix()] = path
    wrong = sorted(there.keys() ^ files.keys())
    if wrong:
        what = "is not signed" if wrong[0] in there else "is missing"
        raise IntegrityError(f"{where}: {wrong[0][:200]!r} {what}", code="signature_files")
    for name, path in there.items():
        with open_itself(path) as file:
            files[name].check(file, path, where)


def open_itself(path: Path) -> BinaryIO:
    """A file for reading, at its begin: FormatError for a link, and for what is no file."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FormatError(f"{path}: is no file of its own", code="file_unreadable")
        return open(path, "rb", buffering=0, opener=_no_link)
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", code="file_not_found") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error


def _no_link(path: str, flags: int) -> int:
    """Where the system can: nor one that was put there since it was looked at."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _envelope(data: bytes, where: str) -> Envelope:
    if len(data) > MAX_BUNDLE_BYTES:
        raise _bad(where, f"larger than {MAX_BUNDLE_BYTES} bytes")
    value = parse_json(data, where)
    if not isinstance(value, dict) or value.get("mediaType") != MEDIA_TYPE:
        raise _bad(where, f"no Sigstore bundle of {MEDIA_TYPE}")
    material = value.get("verificationMaterial")
    if not isinstance(material, dict) or "publicKey" not in material:
        message = "not signed with a key of its own; online identities are not trusted offline"
        raise _bad(where, message)
    envelope = value.get("dsseEnvelope")
    if isinstance(envelope, dict):
        rows = envelope.get("signatures")
        if isinstance(rows, list) and len(rows) != 1:
            raise _bad(where, "a bundle has one signature")
    return envelope_of(envelope, where)


def _files(payload: bytes, where: str) -> dict[str, SignedBytes]:
    """The statement's list. Its subject repeats the digests; both must agree."""
    value = parse_json(payload, where)
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise _bad(where, "what is signed is no in-toto statement")
    if value.get("predicateType") != PREDICATE_TYPE:
        raise _bad(where, f"what is signed is no {PREDICATE_TYPE}")
    predicate = value.get("predicate")
    table = predicate if isinstance(predicate, dict) else {}
    rows = table.get("resources")
    if not isinstance(rows, list) or not rows:
        raise _bad(where, "it lists no files")
    files: dict[str, str] = {}
    digests = hashlib.sha256()
    for row in rows:
        name, digest = _resource(row, where)
        if name in files:
            raise _bad(where, f"{name[:80]!r} stands twice")
        files[name] = digest
        digests.update(bytes.fromhex(digest))
    if _subject(value) != digests.hexdigest():
        raise _bad(where, "its list of files does not match its subject")
    shards = _shards(table[SHARDS], where) if SHARDS in table else None
    if shards is not None and len(files) != 1:
        raise _bad(where, "shards are of one file alone")
    return {name: SignedBytes(digest, shards) for name, digest in files.items()}


def _resource(row: Json, where: str) -> tuple[str, str]:
    table = row if isinstance(row, dict) else {}
    name, digest = table.get("name"), table.get("digest")
    if table.get("algorithm") != "sha256" or not isinstance(name, str) or not _is_digest(digest):
        raise _bad(where, "a file must have a name, and a SHA-256 as digest")
    parts = name.split("/")
    if name != "." and (not name or ".." in parts or "" in parts or "\\" in name or "\0" in name):
        raise _bad(where, f"{name[:80]!r} is no name of a file")
    return name, str(digest)


def _shards(value: Json, where: str) -> Shards:
    """All of a file: of one size, only the last one may be shorter."""
    table = value if isinstance(value, dict) else {}
    size, n_bytes, digests = table.get("size"), table.get("n_bytes"), table.get("sha256")
    if (
        table.keys() != {"size", "n_bytes", "sha256"}
        or type(size) is not int
        or type(n_bytes) is not int
        or not isinstance(digests, list)
        or not all(_is_digest(one) for one in digests)
        or size < 1
        or len(digests) != -(-n_bytes // size)
        or not digests
    ):
        raise _bad(where, "shards must have a size, and a SHA-256 for each of a whole file")
    return Shards(size, n_bytes, tuple(str(one) for one in digests))


def _is_digest(value: Json) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - _HEX


def _subject(value: dict[str, Json]) -> object:
    subjects = value.get("subject")
    first = subjects[0] if isinstance(subjects, list) and len(subjects) == 1 else None
    digest = first.get("digest") if isinstance(first, dict) else None
    return digest.get("sha256") if isinstance(digest, dict) else None


_HEX = set("0123456789abcdef")


def _bad(where: str, what: str) -> FormatError:
    return FormatError(f"{where}: {what}", code="signature_format")
