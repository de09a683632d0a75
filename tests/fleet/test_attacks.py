"""Attacks on a device: every one refused before a file of a model is in the store, old one running.

attacks.py has the table.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ec

from edgellm import load, opening
from edgellm.edgefile import read_header
from edgellm.errors import EdgeError, FormatError, IntegrityError, UnsupportedError
from edgellm.fleet import device as device_module
from edgellm.fleet.bundle import (
    bundle_beside,
    check_directory,
    verify_bundle,
)
from edgellm.fleet.device import FleetDevice
from edgellm.fleet.health import Health
from edgellm.fleet.index import index_bytes, parse_index
from edgellm.fleet.signed import key_id
from edgellm.fleet.source import Artefacts
from edgellm.fleet.trust import ROOT_TYPE, root_bytes
from edgellm.signature import Signers, signed_file
from edgellm.store.store import Store
from fleet.attacks import ATTACKS
from fleet.scene import MEMORY, Scene, changed, scene_in
from fleet.signing import (
    bundle,
    envelope,
    index_of,
    layered_edge,
    new_key,
    new_keys,
    publish,
    put,
    shards_of,
    statement,
)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return scene_in(tmp_path)


class Opened(Exception):
    """The runtime was about to map a file."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """By the digests of their headers, the files that load() gave to the runtime."""
    digests: list[str] = []

    def give(path: Path, *_: object) -> None:
        digests.append(read_header(path).metadata["edgellm.header_sha256"])
        raise Opened

    monkeypatch.setattr(opening, "_load", give)
    return digests


def by_hand(scene: Scene) -> Path:
    """The new file, with the bundle that the index names beside it."""
    file = scene.path(scene.new.file)
    index = parse_index((scene.folder / "index.json").read_bytes(), "index")
    ref = index.releases("pi", "m")[0].variants[0].signature
    if ref is not None and scene.path(ref).exists():
        bundle_beside(file).write_bytes(scene.path(ref).read_bytes())
    return file


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_and_the_old_model_runs(
    name: str, scene: Scene, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
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
    # Nor does load() open what was attacked, where signatures are required.
    monkeypatch.setenv("EDGELLM_HOME", str(scene.folder.parent))
    if name == "root: the key of models revoked":  # which is worth nothing from now on
        with pytest.raises(IntegrityError, match="signed by 0 of"):
            load("kitchen/m", require_signature=True)
        assert opened == []
        return
    with pytest.raises(Opened):
        load("kitchen/m", require_signature=True)
    assert opened == [scene.old.header_sha256]
    if name.startswith(("bundle:", "shards:", "file:", "symlink: of the file")):
        with pytest.raises(EdgeError):
            load(by_hand(scene), require_signature=True)
        assert opened == [scene.old.header_sha256]


def test_there_are_sixty_attacks_and_the_fleet_is_taken_without_them(scene: Scene) -> None:
    assert len(ATTACKS) >= 90
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


def test_another_name_is_no_way_around_a_trusted_root(scene: Scene, tmp_path: Path) -> None:
    """Nor is a device that requires signatures and has no root yet."""
    (scene.folder / "index.json").write_bytes(index_bytes(scene.index(name="garden")))
    store = Store(tmp_path / "store")
    other = FleetDevice(store, "garden", health=lambda *_: Health(""))
    with pytest.raises(IntegrityError, match="no root of the fleet garden is trusted"):
        other.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
    fresh = FleetDevice(Store(tmp_path / "fresh"), "garden", require_signature=True)
    with pytest.raises(IntegrityError, match="this device requires signatures"):
        fresh.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)


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


def test_a_revoked_file_is_opened_nowhere(
    scene: Scene, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELLM_HOME", str(scene.folder.parent))
    copy = by_hand(scene)
    with pytest.raises(Opened):
        load(copy, require_signature=True)
    scene.publish(revoked=(scene.new.file.sha256,))
    scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
    with pytest.raises(IntegrityError, match="is revoked") as caught:
        load(copy, require_signature="fleet")
    assert caught.value.code == "fleet_revoked"
    assert opened == [scene.new.header_sha256]


def test_what_runs_gets_the_bundle_of_a_new_key(
    scene: Scene, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not fetched again for it."""
    monkeypatch.setenv("EDGELLM_HOME", str(scene.folder.parent))
    other = replace(scene.keys, models=new_key())
    scene.root(2, other.signed_root(other.root(2)))
    made = bundle(statement({".": scene.old.file.sha256}), other.models)
    ref = put(scene.folder, "models/old2.sig", json.dumps(made).encode())
    index = index_of(("1.0.0", 100, replace(scene.old, signature=ref)), sequence=6)
    publish(scene.folder, index, other)
    scene.path(scene.old.file).unlink()
    done = scene.device.update(Artefacts(str(scene.folder)), "pi", "m", memory_bytes=MEMORY)
    assert done.what == "same"
    with pytest.raises(Opened):
        load("kitchen/m", require_signature=True)
    assert opened == [scene.old.header_sha256]


def test_too_many_revoked_files_are_refused(scene: Scene) -> None:
    index = scene.index(revoked=("0" * 64,) * 65_537)
    with pytest.raises(FormatError, match="65537 files are revoked, 65536 at most"):
        parse_index(index_bytes(index), "index")


@pytest.mark.parametrize("by_shards", [True, False])
def test_a_file_beside_its_bundle(by_shards: bool, tmp_path: Path) -> None:
    """signed_file(), for a file that no index names."""
    keys = new_keys()
    file = layered_edge(tmp_path / "m.edge", [1], 500)
    data = file.read_bytes()
    shards = shards_of(data) if by_shards else None
    made = statement({"m.edge": hashlib.sha256(data).hexdigest()}, shards)
    bundle_beside(file).write_text(json.dumps(bundle(made, keys.models)))

    def opened(pem: str, path: Path = file) -> str:
        with signed_file(path, Signers({key_id(pem): pem})) as signed:
            return signed.header_sha256

    assert opened(keys.models.pem) == read_header(file).metadata["edgellm.header_sha256"]
    with pytest.raises(IntegrityError, match="signed by 0 of the 1 keys"):
        opened(keys.index.pem)
    with pytest.raises(FormatError, match="not an ECDSA key on P-256"):
        opened(new_key(ec.SECP384R1()).pem)
    with pytest.raises(FormatError, match="no public key"):
        opened("hello")
    link = tmp_path / "link.edge"
    link.symlink_to(file)
    with pytest.raises(FormatError, match="no file of its own"):
        opened(keys.models.pem, link)
    for at in (40, -1):
        file.write_bytes(data)
        changed(file, at)
        with pytest.raises(IntegrityError, match="signs another file"):
            opened(keys.models.pem)
    for wrong in (data[:-1], data + b"\0", b""):
        file.write_bytes(wrong)
        with pytest.raises(IntegrityError, match="signs another file"):
            opened(keys.models.pem)


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
    with pytest.raises(IntegrityError, match="signs another file than a"):
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
