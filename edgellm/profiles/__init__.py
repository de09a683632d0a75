"""Hardware profiles: what is known of classes of devices, and how to read it (docs/PLAN.md)."""

from __future__ import annotations

from .catalogue import GENERIC, find_profile, profile_names, profiles_directory, read_profile
from .reader import parse_profile
from .schema import (
    Accelerator,
    Basis,
    Calibration,
    Cpu,
    Defaults,
    Figure,
    HardwareProfile,
    Memory,
    Storage,
)

__all__ = [
    "GENERIC",
    "Accelerator",
    "Basis",
    "Calibration",
    "Cpu",
    "Defaults",
    "Figure",
    "HardwareProfile",
    "Memory",
    "Storage",
    "find_profile",
    "parse_profile",
    "profile_names",
    "profiles_directory",
    "read_profile",
]
