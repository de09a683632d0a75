"""A folder of artefacts that are not signed, and a device that gets them."""

from __future__ import annotations

from pathlib import Path

from edgellm.fleet.device import FleetDevice
from edgellm.fleet.health import Health
from edgellm.fleet.index import Variant
from edgellm.fleet.source import Artefacts
from edgellm.store.store import Store
from fleet.signing import index_of, layered_edge, publish, variant_of

MEMORY = 1 << 30
HERE = Path(__file__).parent


def well(*_: object) -> Health:
    return Health("", 10.0)


def ill(*_: object) -> Health:
    return Health("scores: others than where it was made", 10.0)


class Fleet:
    """A folder of artefacts, and a device that gets them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder / "dist", folder
        self.folder.mkdir()
        self.device = FleetDevice(Store(folder / "store"), "kitchen", device_id="me", health=well)
        self.artefacts = Artefacts(str(self.folder))
        self.sequence = 0

    def variant(self, name: str, seeds: list[int], n_bytes: int = 50_000) -> Variant:
        path = layered_edge(self.scratch / f"{name}.edge", seeds, n_bytes)
        return variant_of(self.folder, name, path, None)

    def publish(self, *releases: tuple[str, int, Variant]) -> None:
        self.sequence += 1
        publish(self.folder, index_of(*releases, sequence=self.sequence), None)

    def update(self, artefacts: Artefacts | None = None):
        return self.device.update(artefacts or self.artefacts, "pi", "m", memory_bytes=MEMORY)
