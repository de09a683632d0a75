"""Attacks on a device: every one refused before a file of a model is in the store, old one running.

The table says what is done to a fleet that would be taken otherwise, and the code of the error.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ec

from edgellm.errors import EdgeError, FormatError, IntegrityError, UnsupportedError
from edgellm.fleet import device as device_module
from edgellm.fleet.bundle import check_directory, require_signature, verify_bundle
from edgellm.fleet.device import FleetDevice
from edgellm.fleet.health import Health
from edgellm.fleet.index import FileRef, FleetIndex, Variant, index_bytes, parse_index
from edgellm.fleet.source import Artefacts
from edgellm.fleet.trust import INDEX_TYPE, ROOT_TYPE, Role, root_bytes
from edgellm.store.store import Store
from fleet.signing import (
    Keys,
    bundle,
    envelope,
    index_of,
    layered_edge,
    new_key,
    new_keys,
    publish,
    put,
    statement,
    variant_of,
)

MEMORY = 1 << 30


@dataclass
class Scene:
    """A device that runs 1.0.0, and a fleet that offers 2.0.0 in `folder`; sequence 5 was seen."""

    folder: Path
    keys: Keys
    device: FleetDevice
    old: Variant
    new: Variant

    def index(self, **changes: Any) -> FleetIndex:
        releases = [("2.0.0", 100, changes.pop("new", self.new)), ("1.0.0", 100, self.old)]
        return index_of(*releases, **{"sequence": 6, **changes})

    def publish(self, **changes: Any) -> None:
        publish(self.folder, self.index(**changes), self.keys)

    def path(self, ref: FileRef | None) -> Path:
        assert ref is not None
        return self.folder / ref.name

    def sign_index(self, data: bytes, *keys: Any) -> None:
        (self.folder / "index.dsse.json").write_bytes(envelope(INDEX_TYPE, data, *keys))

    def bundled(self, made: dict[str, Any] | bytes) -> None:
        """Another bundle for the new model, in an index that is signed."""
        data = made if isinstance(made, bytes) else json.dumps(made).encode()
        self.publish(new=replace(self.new, signature=put(self.folder, "models/x.sig", data)))

    def path_index(self) -> Path:
        return self.folder / "index.dsse.json"

    def stranger_index(self) -> Path:
        self.sign_index(index_bytes(self.index()), new_key())
        return self.path_index()

    def roles(self, index: Role) -> dict[str, Role]:
        return {**self.keys.root().roles, "index": index}

    def root(self, version: int, data: bytes) -> None:
        (self.folder / "roots").mkdir(exist_ok=True)
        (self.folder / "roots" / f"{version}.dsse.json").write_bytes(data)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    folder, keys = tmp_path / "dist", new_keys()
    old = variant_of(folder, "old", layered_edge(tmp_path / "old.edge", [1, 2, 3], 5000), keys)
    new = variant_of(folder, "new", layered_edge(tmp_path / "new.edge", [1, 2, 4], 5000), keys)
    device = FleetDevice(Store(tmp_path / "store"), "kitchen", health=lambda *_: Health(""))
    device.trust(keys.signed_root(keys.root()), "root")
    publish(folder, index_of(("1.0.0", 100, old), sequence=5), keys)
    assert device.update(Artefacts(str(folder)), "pi", "m", memory_bytes=MEMORY).what == "new"
    made = Scene(folder, keys, device, old, new)
    made.publish()
    return made


def changed(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def in_envelope(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def signed_of(scene: Scene, old: bytes, new: bytes) -> None:
    """An index whose text was changed, signed by whom it must be."""
    data = index_bytes(scene.index())
    assert old in data
    scene.sign_index(data.replace(old, new, 1), scene.keys.index)


def revoke_key(scene: Scene) -> None:
    """Root 2 has another key for the index; the index is signed with the old one."""
    other = new_key()
    role = Role((other.id,), 1)
    root = scene.keys.root(2, index=role)
    scene.root(2, scene.keys.signed_root(replace(root, keys={**root.keys, other.id: other.pem})))


def revoke_model_key(scene: Scene) -> None:
    other = new_key()
    root = scene.keys.root(2, models=Role((other.id,), 1))
    scene.root(2, scene.keys.signed_root(replace(root, keys={**root.keys, other.id: other.pem})))


def other_root(scene: Scene, version: int, *signers: Any, **changes: Any) -> None:
    root = replace(scene.keys.root(version), **changes)
    scene.root(2, envelope(ROOT_TYPE, root_bytes(root), *signers))


def seized(scene: Scene) -> None:
    """A root that only its own new keys have signed."""
    thief = new_keys()
    scene.root(2, thief.signed_root(thief.root(2)))


def swapped_file(scene: Scene) -> None:
    """The old file under the new one's name."""
    scene.path(scene.new.file).write_bytes(scene.path(scene.old.file).read_bytes())


def changed_header(scene: Scene) -> None:
    path = scene.path(scene.new.file)
    changed(path, path.read_bytes().index(b'"edgellm.root":"') + 20)


def linked(scene: Scene, tail: str) -> None:
    outside = scene.folder.parent / f"outside{tail}"
    path = scene.path(scene.new.file if tail == ".edge" else scene.new.chunks)
    path.rename(outside)
    path.symlink_to(outside)


def own_bundle(scene: Scene, **changes: Any) -> dict[str, Any]:
    return bundle(statement({".": scene.new.file.sha256}, **changes), scene.keys.models)


def names_with(scene: Scene, name: str) -> None:
    files = {name: scene.new.file.sha256}
    scene.bundled(bundle(statement(files), scene.keys.models))


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


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_the_old_model_runs(name: str, scene: Scene) -> None:
    attack, code = ATTACKS[name]
    tried: list[Path] = []

    def health(path: Path, *_: object) -> Health:
        tried.append(path)
        return Health("")

    scene.device._health = health
    attack(scene)
    try:
        done = scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
        found = done.what if done.what != "same" else "none"
    except EdgeError as error:
        found = error.code
    assert found == code
    assert tried == []  # nothing was opened, let alone mapped
    active = scene.device.active("m")
    assert active is not None
    assert active.model.digest == scene.old.header_sha256
    assert scene.device.state.sequence >= 5


def test_there_are_sixty_attacks_and_the_fleet_is_taken_without_them(scene: Scene) -> None:
    assert len(ATTACKS) >= 60
    done = scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
    assert (done.what, done.version) == ("new", "2.0.0")


def test_without_a_clock_versions_are_enforced_and_that_is_said(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "clock_now", lambda seen: None)
    scene.publish(expires="2026-02-01T00:00:00Z")
    done = scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
    assert done.what == "new"
    assert "expiry is not" in done.notes[0]
    scene.publish(sequence=5)
    with pytest.raises(IntegrityError, match="sequence 5, but 6 was seen"):
        scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)


def test_a_clock_that_goes_back_is_not_trusted(scene: Scene) -> None:
    from edgellm.fleet.trust import clock_now

    assert clock_now("2999-01-01T00:00:00Z") is None
    now = clock_now("")
    assert now is not None
    assert now <= datetime.now(UTC)


def test_what_runs_is_dropped_when_it_is_revoked(scene: Scene) -> None:
    scene.publish(revoked=(scene.old.file.sha256, scene.new.file.sha256))
    with pytest.raises(IntegrityError, match="nothing takes its place"):
        scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
    assert scene.device.active("m") is None


def test_keys_are_rotated_by_a_root_that_both_have_signed(scene: Scene) -> None:
    other = new_keys()
    root = other.root(2)
    old = [*scene.keys.roots, *other.roots]
    scene.root(2, envelope(ROOT_TYPE, root_bytes(root), *old))
    made = bundle(statement({".": scene.new.file.sha256}), other.models)
    new = replace(scene.new, signature=put(scene.folder, "models/x.sig", json.dumps(made).encode()))
    publish(scene.folder, scene.index(new=new), other)
    done = scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
    assert done.what == "new"
    with pytest.raises(IntegrityError, match="trusts another root"):
        scene.device.trust(other.signed_root(other.root()), "root")


def test_a_file_beside_its_bundle(tmp_path: Path) -> None:
    """require_signature(), for a file that no index names."""
    keys = new_keys()
    file = layered_edge(tmp_path / "m.edge", [1], 500)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    path = tmp_path / "m.sig"
    path.write_text(json.dumps(bundle(statement({"m.edge": digest}), keys.models)))
    assert require_signature(file, path, keys.models.pem) == digest
    with pytest.raises(IntegrityError, match="signed by 0 of the 1 keys"):
        require_signature(file, path, keys.index.pem)
    with pytest.raises(FormatError, match="not an ECDSA key on P-256"):
        require_signature(file, path, new_key(ec.SECP384R1()).pem)
    with pytest.raises(FormatError, match="no public key"):
        require_signature(file, path, "hello")
    link = tmp_path / "link.edge"
    link.symlink_to(file)
    with pytest.raises(FormatError, match="no file of its own"):
        require_signature(link, path, keys.models.pem)
    changed(file, 40)
    with pytest.raises(IntegrityError, match="signs another file"):
        require_signature(file, path, keys.models.pem)


def test_a_directory_has_the_files_that_were_signed(tmp_path: Path) -> None:
    keys, folder = new_keys(), tmp_path / "model"
    files = {name: put(folder, name, name.encode()).sha256 for name in ("a", "sub/b")}
    data = json.dumps(bundle(statement(files), keys.models)).encode()
    signed = verify_bundle(data, {keys.models.id: keys.models.pem}, "bundle")
    check_directory(signed, folder, "bundle")
    put(folder, "extra", b"")
    with pytest.raises(IntegrityError, match="'extra' is not signed"):
        check_directory(signed, folder, "bundle")
    (folder / "extra").unlink()
    (folder / "a").rename(tmp_path / "a")
    with pytest.raises(IntegrityError, match="'a' is missing"):
        check_directory(signed, folder, "bundle")
    (folder / "a").symlink_to(tmp_path / "a")
    with pytest.raises(IntegrityError, match="a link"):
        check_directory(signed, folder, "bundle")
    (folder / "a").unlink()
    put(folder, "a", b"A")
    with pytest.raises(IntegrityError, match="not the bytes that were signed"):
        check_directory(signed, folder, "bundle")


def test_without_cryptography_nothing_counts_as_signed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(UnsupportedError, match="pip install cryptography"):
        scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)


def test_an_index_is_read_as_it_was_written(scene: Scene) -> None:
    index = scene.index(revoked=("0" * 64,))
    assert parse_index(index_bytes(index), "index") == index
    assert index_bytes(parse_index(index_bytes(index), "index")) == index_bytes(index)
