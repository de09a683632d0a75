"""The table of attacks: what is done to a fleet that would be taken otherwise, and the code of the
error that it must end with; "none" where there is none but nothing is taken."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from edgellm.fleet.index import index_bytes
from edgellm.fleet.trust import ROOT_TYPE, Role
from fleet.scene import (
    Scene,
    changed,
    changed_header,
    in_envelope,
    linked,
    names_with,
    other_root,
    own_bundle,
    revoke_key,
    revoke_model_key,
    seized,
    sharded,
    signed_of,
    swapped_file,
)
from fleet.signing import (
    SHARD,
    bundle,
    new_key,
    put,
    shards_of,
    statement,
)


def no_shard(at: int) -> Callable[[dict[str, Any], bytes], None]:
    return lambda shards, _: shards["sha256"].pop(at) and None


Attack = Callable[[Scene], None]
ATTACKS: dict[str, tuple[Attack, str]] = {
    # the index
    "index: no signature": (lambda s: s.path_index().unlink(), "file_not_found"),
    "index: altered payload": (
        lambda s: in_envelope(
            s.path_index(),
            lambda v: v.update(payload=base64.b64encode(index_bytes(s.index(sequence=7))).decode()),
        ),
        "signature_invalid",
    ),
    "index: altered signature": (
        lambda s: in_envelope(
            s.path_index(),
            lambda v: v["signatures"][0].update(sig=base64.b64encode(b"0" * 70).decode()),
        ),
        "signature_invalid",
    ),
    "index: truncated": (
        lambda s: s.path_index().write_bytes(s.path_index().read_bytes()[:-20]),
        "json_syntax",
    ),
    "index: empty": (lambda s: s.path_index().write_bytes(b""), "json_syntax"),
    "index: signed by a stranger": (
        lambda s: s.sign_index(index_bytes(s.index()), new_key()),
        "signature_invalid",
    ),
    "index: a stranger under a known name": (
        lambda s: in_envelope(
            s.stranger_index(), lambda v: v["signatures"][0].update(keyid=s.keys.index.id)
        ),
        "signature_invalid",
    ),
    "index: signed by the key of models": (
        lambda s: s.sign_index(index_bytes(s.index()), s.keys.models),
        "signature_invalid",
    ),
    "index: signed by a root key": (
        lambda s: s.sign_index(index_bytes(s.index()), *s.keys.roots),
        "signature_invalid",
    ),
    "index: no signatures in it": (
        lambda s: in_envelope(s.path_index(), lambda v: v.update(signatures=[])),
        "signature_format",
    ),
    "index: a thousand signatures": (
        lambda s: in_envelope(s.path_index(), lambda v: v.update(signatures=v["signatures"] * 999)),
        "signature_format",
    ),
    "index: another payload type": (
        lambda s: in_envelope(s.path_index(), lambda v: v.update(payloadType=ROOT_TYPE)),
        "signature_invalid",
    ),
    "index: a signed root in its place": (
        lambda s: s.path_index().write_bytes(s.keys.signed_root(s.keys.root())),
        "signature_invalid",
    ),
    "index: not base64": (
        lambda s: in_envelope(s.path_index(), lambda v: v.update(payload="%%%")),
        "signature_format",
    ),
    "index: more in the envelope": (
        lambda s: in_envelope(s.path_index(), lambda v: v.update(more=1)),
        "signature_format",
    ),
    "index: expired": (lambda s: s.publish(expires="2026-02-01T00:00:00Z"), "fleet_expired"),
    "index: expires at no time": (
        lambda s: signed_of(s, b'"expires": ""', b'"expires": "2027-99-99T00:00:00Z"'),
        "signature_format",
    ),
    "index: rolled back": (lambda s: s.publish(sequence=4), "fleet_rolled_back"),
    "index: of another fleet": (lambda s: s.publish(name="garden"), "fleet_swapped"),
    "index: for other devices": (
        lambda s: s.publish(devices={"mac": s.index().devices["pi"]}),
        "fleet_unknown",
    ),
    "index: other models": (lambda s: s.publish(devices={"pi": {}}), "fleet_unknown"),
    "index: path traversal": (
        lambda s: signed_of(s, b'"models/new.edge"', b'"models/../../x.edge"'),
        "fleet_index",
    ),
    "index: absolute path": (
        lambda s: signed_of(s, b'"models/new.edge"', b'"/etc/passwd"'),
        "fleet_index",
    ),
    "index: hidden file": (
        lambda s: signed_of(s, b'"models/new.edge"', b'".git/config"'),
        "fleet_index",
    ),
    "index: backslashes": (
        lambda s: signed_of(s, b'"models/new.edge"', b'"models\\\\..\\\\x"'),
        "fleet_index",
    ),
    "index: device class with a slash": (
        lambda s: signed_of(s, b'"pi"', b'"../pi"'),
        "fleet_index",
    ),
    "index: negative size": (
        lambda s: signed_of(s, b'"n_bytes": ', b'"n_bytes": -'),
        "fleet_index",
    ),
    "index: unknown key": (
        lambda s: signed_of(s, b'"name": "kitchen"', b'"nome": "x"'),
        "fleet_index",
    ),
    "index: key twice": (
        lambda s: signed_of(s, b'"expires": ""', b'"expires": "", "expires": ""'),
        "json_duplicate_key",
    ),
    "index: another format": (
        lambda s: signed_of(s, b"edgellm-fleet-1", b"edgellm-fleet-9"),
        "fleet_index",
    ),
    # roots
    "root: signed by one of two": (
        lambda s: other_root(s, 2, s.keys.roots[0]),
        "signature_invalid",
    ),
    "root: one key twice": (
        lambda s: other_root(s, 2, s.keys.roots[0], s.keys.roots[0]),
        "signature_invalid",
    ),
    "root: seized": (seized, "signature_invalid"),
    "root: skips a version": (lambda s: other_root(s, 3, *s.keys.roots), "fleet_rolled_back"),
    "root: stays at its version": (lambda s: other_root(s, 1, *s.keys.roots), "fleet_rolled_back"),
    "root: threshold of none": (
        lambda s: other_root(s, 2, *s.keys.roots, roles=s.roles(Role((s.keys.index.id,), 0))),
        "signature_format",
    ),
    "root: threshold over its keys": (
        lambda s: other_root(s, 2, *s.keys.roots, roles=s.roles(Role((s.keys.index.id,), 2))),
        "signature_format",
    ),
    "root: one key counted twice": (
        lambda s: other_root(s, 2, *s.keys.roots, roles=s.roles(Role((s.keys.index.id,) * 2, 2))),
        "signature_format",
    ),
    "root: a role of unknown keys": (
        lambda s: other_root(s, 2, *s.keys.roots, roles=s.roles(Role(("0" * 64,), 1))),
        "signature_format",
    ),
    "root: a key under another name": (
        lambda s: other_root(s, 2, *s.keys.roots, keys={"0" * 64: s.keys.index.pem}),
        "signature_format",
    ),
    "root: has expired": (
        lambda s: other_root(s, 2, *s.keys.roots, expires="2026-02-01T00:00:00Z"),
        "fleet_expired",
    ),
    "root: truncated": (
        lambda s: s.root(2, s.keys.signed_root(s.keys.root(2))[:-9]),
        "json_syntax",
    ),
    "root: the key of the index revoked": (revoke_key, "signature_invalid"),
    "root: the key of models revoked": (revoke_model_key, "signature_invalid"),
    # bundles
    "bundle: none": (lambda s: s.publish(new=replace(s.new, signature=None)), "signature_invalid"),
    "bundle: missing": (lambda s: s.path(s.new.signature).unlink(), "file_not_found"),
    "bundle: altered": (lambda s: changed(s.path(s.new.signature), 200), "fleet_digest"),
    "bundle: truncated": (
        lambda s: s.bundled(json.dumps(own_bundle(s)).encode()[:-9]),
        "json_syntax",
    ),
    "bundle: by a stranger": (
        lambda s: s.bundled(bundle(statement({".": s.new.file.sha256}), new_key())),
        "signature_invalid",
    ),
    "bundle: by the key of the index": (
        lambda s: s.bundled(bundle(statement({".": s.new.file.sha256}), s.keys.index)),
        "signature_invalid",
    ),
    "bundle: of another curve": (
        lambda s: s.bundled(bundle(statement({".": s.new.file.sha256}), new_key(ec.SECP384R1()))),
        "signature_invalid",
    ),
    "bundle: of another file": (
        lambda s: s.publish(new=replace(s.new, signature=s.old.signature)),
        "signature_digest",
    ),
    "bundle: one file too many": (
        lambda s: s.bundled(
            bundle(statement({"a": s.new.file.sha256, "b": "0" * 64}), s.keys.models)
        ),
        "signature_files",
    ),
    "bundle: no file": (
        lambda s: s.bundled(bundle(statement({}), s.keys.models)),
        "signature_format",
    ),
    "bundle: subject of others": (
        lambda s: s.bundled(own_bundle(s, subject=[{"name": "m", "digest": {"sha256": "0" * 64}}])),
        "signature_format",
    ),
    "bundle: another predicate": (
        lambda s: s.bundled(own_bundle(s, predicateType="https://slsa.dev/provenance/v1")),
        "signature_format",
    ),
    "bundle: another statement": (
        lambda s: s.bundled(own_bundle(s, _type="x")),
        "signature_format",
    ),
    "bundle: another media type": (
        lambda s: s.bundled({**own_bundle(s), "mediaType": "x"}),
        "signature_format",
    ),
    "bundle: signed online": (
        lambda s: s.bundled({**own_bundle(s), "verificationMaterial": {"certificate": {}}}),
        "signature_format",
    ),
    "bundle: payload of another type": (
        lambda s: s.bundled(
            bundle(statement({".": s.new.file.sha256}), s.keys.models, payload_type="text/plain")
        ),
        "signature_invalid",
    ),
    "bundle: path traversal": (lambda s: names_with(s, "../x.edge"), "signature_format"),
    "bundle: empty name": (lambda s: names_with(s, ""), "signature_format"),
    "bundle: a weak digest": (
        lambda s: s.bundled(
            own_bundle(
                s, predicate={"resources": [{"name": ".", "algorithm": "md5", "digest": "0" * 32}]}
            )
        ),
        "signature_format",
    ),
    # bundles that list shards
    "shards: the first missing": (lambda s: sharded(s, no_shard(0)), "signature_format"),
    "shards: one missing": (lambda s: sharded(s, no_shard(1)), "signature_format"),
    "shards: the last missing": (lambda s: sharded(s, no_shard(-1)), "signature_format"),
    "shards: one twice": (
        lambda s: sharded(s, lambda v, _: v["sha256"].insert(1, v["sha256"][0])),
        "signature_format",
    ),
    "shards: reordered": (
        lambda s: sharded(s, lambda v, _: v["sha256"].reverse()),
        "signature_digest",
    ),
    "shards: of another file": (
        lambda s: sharded(s, lambda _, data: shards_of(bytes(len(data)))),
        "signature_digest",
    ),
    "shards: the last of another file": (
        lambda s: sharded(s, lambda v, _: v["sha256"].__setitem__(-1, "0" * 64)),
        "signature_digest",
    ),
    "shards: a tail past the last": (
        lambda s: sharded(s, lambda _, data: shards_of(data[:-1])),
        "signature_digest",
    ),
    "shards: a whole shard less": (
        lambda s: sharded(s, lambda _, data: shards_of(data[:SHARD])),
        "signature_digest",
    ),
    "shards: more than the file": (
        lambda s: sharded(s, lambda _, data: shards_of(data + b"x")),
        "signature_digest",
    ),
    "shards: of another size": (
        lambda s: sharded(s, lambda v, _: v.update(size=SHARD + 1)),
        "signature_digest",
    ),
    "shards: of half the size": (
        lambda s: sharded(s, lambda v, _: v.update(size=SHARD // 2)),
        "signature_format",
    ),
    "shards: of no size": (
        lambda s: sharded(s, lambda v, _: v.update(size=0)),
        "signature_format",
    ),
    "shards: of true size": (
        lambda s: sharded(s, lambda v, _: v.update(size=True)),
        "signature_format",
    ),
    "shards: of negative bytes": (
        lambda s: sharded(s, lambda v, _: v.update(size=-SHARD, n_bytes=-v["n_bytes"])),
        "signature_format",
    ),
    "shards: none": (
        lambda s: sharded(s, lambda v, _: v.update(n_bytes=0, sha256=[])),
        "signature_format",
    ),
    "shards: no list": (lambda s: sharded(s, lambda v, _: [v]), "signature_format"),
    "shards: no digests": (
        lambda s: sharded(s, lambda v, _: v.update(sha256=["x"] * len(v["sha256"]))),
        "signature_format",
    ),
    "shards: unknown key": (lambda s: sharded(s, lambda v, _: v.update(x=1)), "signature_format"),
    "shards: of two files": (
        lambda s: s.bundled(
            bundle(
                statement({"a": s.new.file.sha256, "b": "0" * 64}, shards_of(b"a")), s.keys.models
            )
        ),
        "signature_format",
    ),
    "shards: without the whole": (
        lambda s: s.bundled(bundle(statement({}, shards_of(b"a")), s.keys.models)),
        "signature_format",
    ),
    "whole: another than the shards": (
        lambda s: s.bundled(
            bundle(
                statement({".": "0" * 64}, shards_of(s.path(s.new.file).read_bytes())),
                s.keys.models,
            )
        ),
        "signature_digest",
    ),
    # files
    "file: one bit": (lambda s: changed(s.path(s.new.file), -2000), "fleet_digest"),
    "file: its header": (changed_header, "header_hash"),
    "file: truncated": (lambda s: os.truncate(s.path(s.new.file), 20_000), "fleet_digest"),
    "file: empty": (lambda s: s.path(s.new.file).write_bytes(b""), "fleet_digest"),
    "file: missing": (lambda s: s.path(s.new.file).unlink(), "file_not_found"),
    "file: the old one in its place": (swapped_file, "fleet_digest"),
    "file: revoked": (lambda s: s.publish(revoked=(s.new.file.sha256,)), "none"),
    "chunks: altered": (lambda s: changed(s.path(s.new.chunks), 3), "fleet_digest"),
    "chunks: of another file": (
        lambda s: s.publish(new=replace(s.new, chunks=s.old.chunks)),
        "fleet_digest",
    ),
    "chunks: too few": (
        lambda s: s.publish(new=replace(s.new, chunks=put(s.folder, "models/c", bytes(64)))),
        "fleet_digest",
    ),
    "symlink: of the file": (lambda s: linked(s, ".edge"), "file_unreadable"),
    "symlink: of the chunks": (lambda s: linked(s, ".chunks"), "file_unreadable"),
}
