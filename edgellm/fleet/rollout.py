"""Which release and which variant a device gets. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from .index import Release, Variant

PERCENT = 100
_STEPS = 10_000  # a hundredth of a percent


def bucket(device_id: str, model: str, version: str) -> float:
    """0 <= percent < 100, the same for a device, a model and a version for ever, spread evenly over
    devices; another version draws anew, so that no device is everybody's canary."""
    text = "\0".join((device_id, model, version)).encode()
    value = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    return (value % (PERCENT * _STEPS)) / _STEPS


@dataclass(frozen=True)
class Choice:
    """What a device should run. notes: what was passed over, and why."""

    release: Release | None
    variant: Variant | None
    notes: tuple[str, ...]


def choose(
    releases: Collection[Release],
    device_id: str,
    model: str,
    *,
    memory_bytes: int,
    refused: Collection[str],
) -> Choice:
    """The first release that is for this device, and the first of its variants that fits into
    memory_bytes. refused: SHA-256 of files that are revoked, or failed here."""
    notes: list[str] = []
    for release in releases:
        if bucket(device_id, model, release.version) >= release.canary_percent:
            notes.append(f"{release.version}: for {release.canary_percent} % of devices, not this")
            continue
        for variant in release.variants:
            name = f"{release.version}, {variant.recipe}"
            if variant.file.sha256 in refused:
                notes.append(f"{name}: revoked, or failed on this device")
            elif variant.memory_bytes > memory_bytes:
                needed, there = variant.memory_bytes >> 20, memory_bytes >> 20
                notes.append(f"{name}: needs {needed} MiB of memory, {there} are available")
            else:
                return Choice(release, variant, tuple(notes))
    return Choice(None, None, tuple(notes))
