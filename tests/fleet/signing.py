"""A signed fleet for tests: keys, roots and bundles, made with `cryptography` alone.

Bundles are what model-signing 1.1 writes, field by field; tests/fleet/test_signing.py compares.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from edgellm.converters.fleet.describe import describe
from edgellm.converters.fleet.sign import _sign as sign_bytes
from edgellm.converters.fleet.sign import envelope_bytes

from edgellm.edgechunks import chunk_digests
from edgellm.edgefile import EdgeWriter, read_header
from edgellm.fleet.bundle import (
    MEDIA_TYPE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    SHARDS,
    STATEMENT_TYPE,
)
from edgellm.fleet.index import FileRef, FleetIndex, Release, Variant, index_bytes
from edgellm.fleet.signed import Envelope, Signature, key_id
from edgellm.fleet.trust import INDEX_TYPE, ROOT_TYPE, Role, Root, root_bytes

SHARD = 8192  # small, so that small files have several


@dataclass(frozen=True)
class Key:
    private: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def id(self) -> str:
        return key_id(self.pem)


def new_key(curve: ec.EllipticCurve | None = None) -> Key:
    return Key(ec.generate_private_key(curve or ec.SECP256R1()))


def envelope(kind: str, payload: bytes, *keys: Key) -> bytes:
    plain = Envelope(kind, payload, ())
    made = tuple(Signature(key.id, sign_bytes(key.private, plain.signed_bytes)) for key in keys)
    return envelope_bytes(replace(plain, signatures=made))


def statement(files: dict[str, str], shards: object = None, **changes: Any) -> dict[str, Any]:
    """shards: of the only file, as shards_of() lists them."""
    digests = hashlib.sha256(b"".join(bytes.fromhex(one) for one in files.values()))
    rows = [{"name": n, "algorithm": "sha256", "digest": one} for n, one in files.items()]
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    more = {} if shards is None else {SHARDS: shards}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": "model", "digest": {"sha256": digests.hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"serialization": serialization, "resources": rows, **more},
        **changes,
    }


def shards_of(data: bytes, size: int = SHARD) -> dict[str, Any]:
    """The shards of a file, as bundles made here list them."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    digests = [hashlib.sha256(part).hexdigest() for part in parts]
    return {"size": size, "n_bytes": len(data), "sha256": digests}


def bundle(document: dict[str, Any], key: Key, **changes: Any) -> dict[str, Any]:
    payload = json.dumps(document).encode()
    plain = Envelope(changes.pop("payload_type", PAYLOAD_TYPE), payload, ())
    signature = base64.b64encode(sign_bytes(key.private, plain.signed_bytes)).decode()
    return {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.id}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": plain.payload_type,
            "signatures": [{"sig": signature, "keyid": ""}],
        },
        **changes,
    }


@dataclass(frozen=True)
class Keys:
    """Of two people, who must both sign roots; of the index, and of models."""

    roots: tuple[Key, Key]
    index: Key
    models: Key

    def root(self, version: int = 1, expires: str = "", **roles: Role) -> Root:
        known = {key.id: key.pem for key in (*self.roots, self.index, self.models)}
        plain = {
            "root": Role(tuple(key.id for key in self.roots), 2),
            "index": Role((self.index.id,), 1),
            "models": Role((self.models.id,), 1),
        }
        return Root(version, expires, known, {**plain, **roles})

    def signed_root(self, root: Root) -> bytes:
        return envelope(ROOT_TYPE, root_bytes(root), *self.roots)


def new_keys() -> Keys:
    return Keys((new_key(), new_key()), new_key(), new_key())


def layered_edge(path: Path, seeds: list[int], n_bytes: int = 50_000) -> Path:
    """A file of one blob per layer, as good as any to be moved about; a seed is a layer."""
    with EdgeWriter(path, spec={"arch": "none"}) as writer:
        for at, seed in enumerate(seeds):
            data = np.random.default_rng(seed).integers(0, 256, n_bytes, np.uint8).tobytes()
            writer.plan(f"layers.{at}", "blob", format="U8", shape=(len(data),))
        for at, seed in enumerate(seeds):
            data = np.random.default_rng(seed).integers(0, 256, n_bytes, np.uint8).tobytes()
            writer.add(f"layers.{at}", data)
    return path


def put(folder: Path, name: str, data: bytes) -> FileRef:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return FileRef(name, hashlib.sha256(data).hexdigest(), len(data))


def variant_of(folder: Path, stem: str, file: Path, keys: Keys | None) -> Variant:
    header = read_header(file)
    ref = put(folder, f"models/{stem}.edge", file.read_bytes())
    signature = None
    if keys is not None:
        made = bundle(statement({".": ref.sha256}, shards_of(file.read_bytes())), keys.models)
        signature = put(folder, f"models/{stem}.sig", json.dumps(made).encode())
    return Variant(
        "plain",
        ref,
        str(describe(header, ref.sha256)["header_sha256"]),
        put(folder, f"models/{stem}.chunks", chunk_digests(header, file)),
        put(folder, f"models/{stem}.json", b"{}"),
        signature,
        1000,
        16,
        "K8V8",
        None,
        None,
    )


def index_of(*releases: tuple[str, int, Variant], sequence: int = 1, **changes: Any) -> FleetIndex:
    made = tuple(Release(version, percent, (one,)) for version, percent, one in releases)
    plain: dict[str, Any] = {"name": "kitchen", "expires": "", "revoked": ()}
    return FleetIndex(**{**plain, "sequence": sequence, "devices": {"pi": {"m": made}}, **changes})


def publish(folder: Path, index: FleetIndex, keys: Keys | None) -> None:
    (folder / "index.json").write_bytes(index_bytes(index))
    if keys is not None:
        signed = envelope(INDEX_TYPE, index_bytes(index), keys.index)
        (folder / "index.dsse.json").write_bytes(signed)
