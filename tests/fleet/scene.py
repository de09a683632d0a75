"""A device that runs a version of a signed fleet, and is offered the next: to be attacked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.fleet.device import FleetDevice
from edgellm.fleet.health import Health
from edgellm.fleet.index import FileRef, FleetIndex, Variant, index_bytes
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
    shards_of,
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


def scene_in(tmp_path: Path) -> Scene:
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


def sharded(scene: Scene, change: Callable[[dict[str, Any], bytes], object]) -> None:
    """A bundle of the new file with its shards changed, signed by whom it must."""
    data = scene.path(scene.new.file).read_bytes()
    shards = shards_of(data)
    changed_to = change(shards, data)
    made = statement({".": scene.new.file.sha256}, shards if changed_to is None else changed_to)
    scene.bundled(bundle(made, scene.keys.models))
