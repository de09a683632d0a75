"""Whether a device can take a file: its formats, its disk, its memory; and how fast it would be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.edgefile import read_header
from edgellm.planner import plan_of

from .manifest import FleetDevice

_MIB = 1 << 20


@dataclass(frozen=True)
class Fit:
    """memory_bytes: with `context` tokens. tokens_per_s: predicted, None where the device's
    bandwidth is not known. reason: why the device cannot take it; "": it can."""

    memory_bytes: int
    context: int
    tokens_per_s: float | None
    reason: str


def fit_of(device: FleetDevice, path: Path, described: dict[str, Any]) -> Fit:
    """described: figures of the step `describe`."""
    plan = plan_of(read_header(path), 0, device.kv)
    context = min(device.context, plan.n_ctx_train)
    needed = plan.bytes_at(context)
    foreign = sorted(set(described["formats"]) - set(device.formats)) if device.formats else []
    reason = ""
    if foreign:
        reason = f"it has matrices in {', '.join(foreign)}, which the device does not run"
    elif device.disk_mib and described["n_bytes"] > device.disk_mib * _MIB:
        reason = _over("file", described["n_bytes"], device.disk_mib, "disk_mib")
    elif device.ram_mib and needed > device.ram_mib * _MIB:
        reason = _over(f"memory with {context} tokens", needed, device.ram_mib, "ram_mib")
    speed = device.read_gb_per_s * 1e9 / described["bytes_per_token"]
    return Fit(needed, context, round(speed, 3) if speed else None, reason)


def _over(what: str, n_bytes: int, limit_mib: int, key: str) -> str:
    return f"{what}: {n_bytes / _MIB:.1f} MiB, but {key} is {limit_mib}"
