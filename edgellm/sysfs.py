"""What Linux says of heat, battery and memory pressure, in /sys and /proc.

Whatever is not there, cannot be read or makes no sense is unknown: None. `root` stands for /.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SANE_CELSIUS = (-40.0, 200.0)
_LIMIT_KINDS = ("passive", "hot", "critical")  # of trip points; active ones start a fan
_BELOW_CRITICAL = 10.0  # degrees, where no other limit is told
_MOST_ZONES, _MOST_TRIPS, _MOST_SUPPLIES = 128, 16, 32
_MAX_BYTES = 4096


@dataclass(frozen=True)
class Battery:
    """`percent` of its charge, and whether it is what the machine runs on."""

    percent: float
    is_discharging: bool


def heat_headroom(root: Path) -> float | None:
    """Degrees Celsius to the limit that is nearest, of all zones that have one; below 0: it was
    passed."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))[:_MOST_ZONES]
    return min((room for zone in zones if (room := _headroom(zone)) is not None), default=None)


def battery(root: Path) -> Battery | None:
    """The emptiest one; None on a machine without."""
    found = []
    for supply in sorted((root / "sys/class/power_supply").glob("*"))[:_MOST_SUPPLIES]:
        percent = _number(supply / "capacity")
        # Those of mice and keyboards say that they are a device's, not the system's.
        is_own = _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device"
        if is_own and percent is not None and 0 <= percent <= 100:
            found.append(Battery(percent, _text(supply / "status") == "Discharging"))
    return min(found, key=lambda one: one.percent, default=None)


def memory_stall(root: Path) -> float | None:
    """Percent of the last 10 s in which some task waited for memory: the highest of the machine's
    and that of the cgroups that this process is in."""
    files = [root / "proc/pressure/memory", *(at / "memory.pressure" for at in _cgroups(root))]
    return max((stall for file in files if (stall := _some_avg10(file)) is not None), default=None)


def memory_fill(root: Path) -> float | None:
    """What the cgroups of this process hold of what they may before they are slowed down
    (memory.high, else memory.max; version 1: limit_in_bytes), page cache left out: the fullest."""
    fills = []
    for at in _cgroups(root):
        used, cache = _number(at / "memory.current"), _stat(at, "inactive_file")
        limits = (_number(at / "memory.high"), _number(at / "memory.max"))
        fills.append(_fill(used, cache, min((one for one in limits if one), default=None)))
    for at in _cgroups(root, "memory"):
        used, cache = _number(at / "memory.usage_in_bytes"), _stat(at, "total_inactive_file")
        fills.append(_fill(used, cache, _number(at / "memory.limit_in_bytes")))
    return max((fill for fill in fills if fill is not None), default=None)


def _headroom(zone: Path) -> float | None:
    now = _celsius(zone / "temp")
    if now is None:
        return None
    limits = []
    for at in range(_MOST_TRIPS):
        kind = _text(zone / f"trip_point_{at}_type")
        if kind is None:
            break
        limit = _celsius(zone / f"trip_point_{at}_temp") if kind in _LIMIT_KINDS else None
        if limit is not None and limit > 0:
            limits.append(limit - (_BELOW_CRITICAL if kind == "critical" else 0.0))
    return min(limits) - now if limits else None


def _celsius(path: Path) -> float | None:
    thousandths = _number(path)
    if thousandths is None or not _SANE_CELSIUS[0] <= thousandths / 1000 <= _SANE_CELSIUS[1]:
        return None
    return thousandths / 1000


def _some_avg10(path: Path) -> float | None:
    """Of a line "some avg10=1.23 avg60=0.80 avg300=0.20 total=12345"."""
    for line in (_text(path) or "").splitlines():
        words = line.split()
        if words[:1] == ["some"]:
            for word in words[1:]:
                key, _, value = word.partition("=")
                percent = _as_number(value) if key == "avg10" else None
                if percent is not None and 0 <= percent <= 100:
                    return percent
    return None


def _cgroups(root: Path, controller: str = "") -> Iterator[Path]:
    """Of version 2 for "", else of a controller of version 1: ours, then those that it is in."""
    base = root / "sys/fs/cgroup" / controller
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if (controller in names.split(",")) if controller else names == "":
            parts = [part for part in path.split("/") if part not in ("", ".", "..")]
            for n in range(len(parts), -1, -1):
                yield base.joinpath(*parts[:n])
            return


def _fill(used: float | None, cache: float | None, limit: float | None) -> float | None:
    if used is None or limit is None or limit <= 0:
        return None
    return max(used - (cache or 0.0), 0.0) / limit


def _stat(cgroup: Path, key: str) -> float | None:
    for line in (_text(cgroup / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return _as_number(value)
    return None


def _number(path: Path) -> float | None:
    text = _text(path)
    return None if text is None else _as_number(text)


def _as_number(text: str) -> float | None:
    """Of digits; "max" and whatever else is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e18 else None


def _text(path: Path) -> str | None:
    """Drivers answer with errors of their own, such as EAGAIN of a sensor that sleeps."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return None
