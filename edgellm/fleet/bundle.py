"""Signatures of models: bundles of OpenSSF model-signing (OMS), verified offline with a known key.

A Sigstore bundle with a DSSE envelope around an in-toto statement, which lists every file by its
SHA-256. Only what `model_signing sign key` writes for ECDSA P-256 is read; bundles signed online
need a network to be trusted, and are refused. https://github.com/ossf/model-signing-spec
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError, IntegrityError
from ..small_files import read_small
from ..strict_json import Json, parse_json
from .signed import Envelope, envelope_of, key_id, verify

MAX_BUNDLE_BYTES = 4 << 20
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_CHUNK_BYTES = 1 << 20


def bundle_beside(path: Path) -> Path:
    """Where the bundle of a file stands."""
    return path.with_name(f"{path.name}.sig")


def require_signature(path: Path, bundle: Path, pem: str) -> str:
    """The SHA-256 of the file at `path`, which `bundle` says was signed with the key in `pem`: call
    it before the file is loaded, and load the same path.

    IntegrityError: not signed with that key, other bytes, or other files than were signed.
    FormatError: no such file, a link, or no bundle. UnsupportedError without `cryptography`.
    """
    files = verify_bundle(read_small(bundle, MAX_BUNDLE_BYTES), {key_id(pem): pem}, str(bundle))
    digest = file_sha256(path)
    check_single(files, digest, path.name, str(bundle))
    return digest


def verify_bundle(data: bytes, keys: Mapping[str, str], where: str) -> dict[str, str]:
    """Files by name -> SHA-256, that one of `keys` (id -> PEM) has signed."""
    envelope = _envelope(data, where)
    return _files(verify(envelope, PAYLOAD_TYPE, keys, 1, where), where)


def check_single(files: Mapping[str, str], sha256: str, name: str, where: str) -> None:
    """Of a bundle for one file: IntegrityError where it lists others, or another digest. What the
    file was called when it was signed does not matter ("." for a lone one)."""
    if len(files) != 1:
        message = f"{where}: signs {len(files)} files, not {name} alone"
        raise IntegrityError(message, code="signature_files")
    if next(iter(files.values())) != sha256:
        message = f"{where}: signs another file than {name}; nothing of it is used"
        raise IntegrityError(message, code="signature_digest")


def check_directory(files: Mapping[str, str], folder: Path, where: str) -> None:
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
        if file_sha256(path) != files[name]:
            raise IntegrityError(f"{path}: not the bytes that were signed", code="signature_digest")


def file_sha256(path: Path) -> str:
    """Of a file itself: FormatError for a link."""
    with open_itself(path) as file:
        return sha256_of(file, path)


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


def sha256_of(file: BinaryIO, path: Path) -> str:
    """Of what is left of an open file, which is called `path`."""
    digest = hashlib.sha256()
    try:
        if sys.platform == "linux":  # so that the disk reads on while this hashes
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    return digest.hexdigest()


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


def _files(payload: bytes, where: str) -> dict[str, str]:
    """The statement's list. Its subject repeats the digests; both must agree."""
    value = parse_json(payload, where)
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise _bad(where, "what is signed is no in-toto statement")
    if value.get("predicateType") != PREDICATE_TYPE:
        raise _bad(where, f"what is signed is no {PREDICATE_TYPE}")
    predicate = value.get("predicate")
    rows = predicate.get("resources") if isinstance(predicate, dict) else None
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
    return files


def _resource(row: Json, where: str) -> tuple[str, str]:
    table = row if isinstance(row, dict) else {}
    name, digest = table.get("name"), table.get("digest")
    is_digest = isinstance(digest, str) and len(digest) == 64 and not set(digest) - _HEX
    if table.get("algorithm") != "sha256" or not isinstance(name, str) or not is_digest:
        raise _bad(where, "a file must have a name, and a SHA-256 as digest")
    parts = name.split("/")
    if name != "." and (not name or ".." in parts or "" in parts or "\\" in name or "\0" in name):
        raise _bad(where, f"{name[:80]!r} is no name of a file")
    return name, str(digest)


def _subject(value: dict[str, Json]) -> object:
    subjects = value.get("subject")
    first = subjects[0] if isinstance(subjects, list) and len(subjects) == 1 else None
    digest = first.get("digest") if isinstance(first, dict) else None
    return digest.get("sha256") if isinstance(digest, dict) else None


_HEX = set("0123456789abcdef")


def _bad(where: str, what: str) -> FormatError:
    return FormatError(f"{where}: {what}", code="signature_format")
