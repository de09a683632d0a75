"""Signed documents: DSSE envelopes, ECDSA P-256 with SHA-256, and the keys that may sign them.

An envelope holds the very bytes that were signed, so nothing is parsed before it is verified and no
canonical form is needed. Needs the package `cryptography`; without it nothing counts as verified.
https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import FormatError, IntegrityError, UnsupportedError
from ..strict_json import Json, parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

HINT = (
    "verifying signatures needs the package cryptography: pip install cryptography (or "
    "'edgellm[sign]'); without it nothing that must be signed is used"
)
MAX_ENVELOPE_BYTES = 32 << 20
MAX_SIGNATURES = 64


@dataclass(frozen=True)
class Signature:
    """key_id: who says to have signed; "" in bundles of OpenSSF model-signing."""

    key_id: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """payload: not trusted before verify() has said by how many of whom it is signed."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def signed_bytes(self) -> bytes:
        """What a signature is of (DSSE's pre-authentication encoding)."""
        kind = self.payload_type.encode()
        head = b"DSSEv1 %d %b %d " % (len(kind), kind, len(self.payload))
        return head + self.payload


def key_id(pem: str) -> str:
    """SHA-256 of a public key's PEM text, as model-signing hints at keys."""
    return hashlib.sha256(pem.encode()).hexdigest()


def public_key(pem: str, where: str) -> EllipticCurvePublicKey:
    """UnsupportedError without `cryptography`; FormatError for what is no P-256 key."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ModuleNotFoundError:
        raise UnsupportedError(HINT, code="signature_unsupported") from None
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(f"{where}: no public key: {error}", code="signature_key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError(f"{where}: not an ECDSA key on P-256", code="signature_key")
    return key


def signers(envelope: Envelope, keys: Mapping[str, str], where: str) -> frozenset[str]:
    """Ids of those `keys` (id -> PEM) that have signed. A signature that names no key is tried with
    each. A wrong signature counts for nothing."""
    from_whom: set[str] = set()
    for signature in envelope.signatures:
        wanted = keys if not signature.key_id else {signature.key_id} & keys.keys()
        for name in wanted:
            if name not in from_whom and _is_by(public_key(keys[name], where), signature, envelope):
                from_whom.add(name)
    return frozenset(from_whom)


def verify(
    envelope: Envelope, payload_type: str, keys: Mapping[str, str], threshold: int, where: str
) -> bytes:
    """The payload, signed by at least `threshold` of `keys`. IntegrityError where it is not, or is
    of another type."""
    if envelope.payload_type != payload_type:
        message = f"{where}: is a {envelope.payload_type[:80]!r}, not a {payload_type!r}"
        raise IntegrityError(message, code="signature_invalid")
    n_signed = len(signers(envelope, keys, where))
    if threshold < 1 or n_signed < threshold:
        message = (
            f"{where}: signed by {n_signed} of the {len(keys)} keys that may, {max(threshold, 1)} "
            "are needed; it was changed, or is from somebody else: nothing of it is used"
        )
        raise IntegrityError(message, code="signature_invalid")
    return envelope.payload


def parse_envelope(data: bytes, where: str) -> Envelope:
    """FormatError for what is no DSSE envelope."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _bad(where, f"larger than {MAX_ENVELOPE_BYTES} bytes")
    return envelope_of(parse_json(data, where), where)


def envelope_of(value: Json, where: str) -> Envelope:
    """The same, of a document that is read already."""
    if not isinstance(value, dict) or value.keys() != {"payloadType", "payload", "signatures"}:
        raise _bad(where, "no envelope: it must hold payloadType, payload and signatures")
    kind, rows = value["payloadType"], value["signatures"]
    if not isinstance(kind, str) or not kind.isascii() or not isinstance(rows, list):
        raise _bad(where, "payloadType or signatures are of another type")
    if not 1 <= len(rows) <= MAX_SIGNATURES:
        raise _bad(where, f"has {len(rows)} signatures, 1 to {MAX_SIGNATURES} are read")
    return Envelope(kind, decoded(value["payload"], where), tuple(_rows(rows, where)))


def decoded(value: Json, where: str) -> bytes:
    """Strict base64."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise _bad(where, "not base64 where it must be")


def _rows(rows: Iterable[Json], where: str) -> Iterable[Signature]:
    for row in rows:
        if not isinstance(row, dict) or not row.keys() <= {"keyid", "sig"} or "sig" not in row:
            raise _bad(where, "a signature must hold keyid and sig")
        name = row.get("keyid", "")
        if name is not None and not isinstance(name, str):
            raise _bad(where, "keyid is no text")
        yield Signature(name or "", decoded(row["sig"], where))


def _is_by(key: EllipticCurvePublicKey, signature: Signature, envelope: Envelope) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(signature.value, envelope.signed_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _bad(where: str, what: str) -> FormatError:
    return FormatError(f"{where}: {what}", code="signature_format")
