"""Signs the artefacts of a fleet: files, index and roots, with keys that lie on this machine.

Files get bundles of OpenSSF model-signing, whose library (extra "sign") lists them; index and
roots DSSE envelopes. Keys are ECDSA P-256 in PEM; nothing is sent anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.errors import EdgeError, FormatError, InvalidArgumentError, UnsupportedError
from edgellm.fleet.bundle import (
    MAX_BUNDLE_BYTES,
    MEDIA_TYPE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    SHARDS,
    STATEMENT_TYPE,
    bundle_beside,
)
from edgellm.fleet.index import (
    FileRef,
    FleetIndex,
    Release,
    Variant,
    index_bytes,
    parse_index,
)
from edgellm.fleet.signed import Envelope, Signature, key_id, public_key
from edgellm.fleet.signed_bytes import SHARD_BYTES, Shards
from edgellm.fleet.source import Artefacts
from edgellm.fleet.trust import (
    INDEX_TYPE,
    ROLES,
    ROOT_TYPE,
    Role,
    Root,
    first_root,
    next_root,
    root_bytes,
)
from edgellm.small_files import read_small

from ..calibrate.work import make_folder
from .artefacts import Content, content_of, write_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

HINT = "signing needs model-signing; install it with: pip install 'edgellm[sign]'"
MAX_KEY_BYTES = 65536


def make_key(path: Path) -> str:
    """A new private key at `path`, readable by its owner alone, and its public one at PATH.pub; the
    id. FormatError where something is there."""
    ec, serialization = _cryptography()
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = _public_pem(key)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
        with path.with_name(f"{path.name}.pub").open("x", encoding="ascii") as public:
            public.write(pem)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error}", "file_write_failed") from error
    return key_id(pem)


def make_root(
    out: Path,
    version: int,
    roles: dict[str, Sequence[Path]],
    thresholds: dict[str, int],
    signing: Sequence[Path],
    expires: str = "",
) -> Path:
    """Writes OUT/roots/VERSION.dsse.json. roles: public keys (PEM files) of each role. signing:
    private keys that sign it: the threshold of its own `root` role and, from version 2 on, of the
    root before, which must lie beside it. InvalidArgumentError where they do not suffice."""
    pems = {role: [_read_pem(path) for path in roles[role]] for role in ROLES}
    keys = {key_id(pem): pem for many in pems.values() for pem in many}
    named = {
        role: Role(tuple(key_id(pem) for pem in pems[role]), thresholds.get(role, 1))
        for role in ROLES
    }
    root = Root(version, expires, keys, named)
    data = _signed(ROOT_TYPE, root_bytes(root), signing)
    where = f"root {version}"
    try:
        if version == 1:
            first_root(data, where, None)
        else:
            before = read_small(_root_path(out, version - 1), MAX_BUNDLE_BYTES)
            next_root(data, first_root(before, f"root {version - 1}", None), where, None)
    except EdgeError as error:
        if error.code not in ("signature_invalid", "signature_format", "fleet_rolled_back"):
            raise
        message = f"this root would not be trusted: {error}"
        raise InvalidArgumentError(message, code="invalid_argument") from error
    path = _root_path(out, version)
    make_folder(path.parent)
    write_file(path, content_of(path.name, data))
    return path


def sign_fleet(
    out: Path, model_key: Path, index_keys: Sequence[Path], revoked: Sequence[str] = ()
) -> Path:
    """Signs every model of the artefacts in `out`, then the index, with the digests of the bundles
    in it and `revoked` (SHA-256 of files) added; the path of the signed index. The index that is
    not signed stays what it is."""
    artefacts = Artefacts(str(out))
    index = parse_index(artefacts.index(), str(out))
    is_oci = artefacts.is_oci
    bundles: dict[str, FileRef] = {}
    for ref in _models(index):
        if ref.sha256 not in bundles:
            file = out / (f"blobs/sha256/{ref.sha256}" if is_oci else ref.name)
            content = content_of(f"{ref.name}.sig", sign_file(file, model_key))
            bundles[ref.sha256] = content.ref
            write_file(_place(out, content, is_oci), content)
    signed = _with_bundles(index, bundles)
    signed = replace(signed, revoked=tuple(sorted({*index.revoked, *revoked})))
    data = index_bytes(signed)
    parse_index(data, "the index")  # says what is wrong with a digest
    path = out / "index.dsse.json"
    write_file(path, content_of(path.name, _signed(INDEX_TYPE, data, index_keys)))
    return path


def envelope_bytes(envelope: Envelope) -> bytes:
    """A DSSE envelope as JSON."""
    value = {
        "payloadType": envelope.payload_type,
        "payload": base64.b64encode(envelope.payload).decode("ascii"),
        "signatures": [
            {"keyid": one.key_id, "sig": base64.b64encode(one.value).decode("ascii")}
            for one in envelope.signatures
        ],
    }
    return json.dumps(value, sort_keys=True).encode("ascii")


def _signed(payload_type: str, payload: bytes, keys: Sequence[Path]) -> bytes:
    if not keys:
        raise InvalidArgumentError("name at least one private key", code="invalid_argument")
    plain = Envelope(payload_type, payload, ())
    signatures = []
    for path in keys:
        key = _private_key(path)
        signatures.append(Signature(key_id(_public_pem(key)), _sign(key, plain.signed_bytes)))
    return envelope_bytes(replace(plain, signatures=tuple(signatures)))


def sign_file(file: Path, model_key: Path) -> bytes:
    """A bundle of model-signing for one file, with its shards. UnsupportedError without the
    library, FormatError for no such file and for what is no private key on P-256."""
    try:
        from model_signing import hashing
    except ImportError:
        raise UnsupportedError(HINT, code="feature_unsupported") from None
    key = _private_key(model_key)
    try:
        manifest = hashing.Config().hash(file)
        shards = _shards(file)
    except (ValueError, OSError) as error:
        raise FormatError(f"{file}: cannot be signed: {error}", "signature_format") from error
    listed = [(one.identifier, one.digest) for one in manifest.resource_descriptors()]
    whole = hashlib.sha256(b"".join(digest.digest_value for _, digest in listed))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": manifest.model_name, "digest": {"sha256": whole.hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": manifest.serialization_type,
            "resources": [
                {"name": name, "algorithm": digest.algorithm, "digest": digest.digest_hex}
                for name, digest in listed
            ],
            SHARDS: asdict(shards),
        },
    }
    return _bundle_bytes(statement, key)


def _shards(file: Path) -> Shards:
    digests = []
    with file.open("rb") as opened:
        while part := opened.read(SHARD_BYTES):
            digests.append(hashlib.sha256(part).hexdigest())
        n_bytes = opened.tell()
    if not digests:
        raise ValueError("it is empty")
    return Shards(SHARD_BYTES, n_bytes, tuple(digests))


def sign_beside(file: Path, model_key: Path) -> Path:
    """The bundle of a file, at FILE.sig; its path."""
    path = bundle_beside(file)
    write_file(path, content_of(path.name, sign_file(file, model_key)))
    return path


def _bundle_bytes(statement: dict[str, Any], key: EllipticCurvePrivateKey) -> bytes:
    """As model-signing writes it, which would write its own fields only."""
    payload = json.dumps(statement, sort_keys=True).encode("ascii")
    value = _sign(key, Envelope(PAYLOAD_TYPE, payload, ()).signed_bytes)
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key_id(_public_pem(key))},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode("ascii"),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(value).decode("ascii"), "keyid": ""}],
        },
    }
    return json.dumps(bundle, sort_keys=True).encode("ascii")


def _models(index: FleetIndex) -> list[FileRef]:
    return [
        variant.file
        for models in index.devices.values()
        for releases in models.values()
        for release in releases
        for variant in release.variants
    ]


def _with_bundles(index: FleetIndex, bundles: dict[str, FileRef]) -> FleetIndex:
    def release_with(release: Release) -> Release:
        return replace(release, variants=tuple(variant_with(one) for one in release.variants))

    def variant_with(variant: Variant) -> Variant:
        return replace(variant, signature=bundles[variant.file.sha256])

    devices = {
        device: {
            model: tuple(release_with(one) for one in releases)
            for model, releases in models.items()
        }
        for device, models in index.devices.items()
    }
    return replace(index, devices=devices)


def _place(out: Path, content: Content, is_oci: bool) -> Path:
    path = out / (f"blobs/sha256/{content.ref.sha256}" if is_oci else content.ref.name)
    make_folder(path.parent)
    return path


def _root_path(out: Path, version: int) -> Path:
    return out / "roots" / f"{version}.dsse.json"


def _sign(key: EllipticCurvePrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _private_key(path: Path) -> EllipticCurvePrivateKey:
    """FormatError for what is no unencrypted P-256 key."""
    ec, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(read_small(path, MAX_KEY_BYTES), None)
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path}: no private key: {error}", code="signature_key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FormatError(f"{path}: not an ECDSA key on P-256", code="signature_key")
    found: EllipticCurvePrivateKey = key
    return found


def _public_pem(key: EllipticCurvePrivateKey) -> str:
    _, serialization = _cryptography()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return str(public.decode("ascii"))


def _read_pem(path: Path) -> str:
    """A public key, written as this writes it, whatever stands around it."""
    _, serialization = _cryptography()
    try:
        text = read_small(path, MAX_KEY_BYTES).decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: no public key: {error}", code="signature_key") from error
    key = public_key(text, str(path))
    public = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public.decode("ascii")


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ModuleNotFoundError:
        raise UnsupportedError(HINT, code="feature_unsupported") from None
    return ec, serialization
