"""Many models for many devices from one manifest: a graph of steps, each done once.

build.py is the door. manifest.py reads fleet.toml, graph.py makes steps of it that are named by all
they depend on (node.py), step.py does one, schedule.py all of them on an engine (local.py,
ray_engine.py), assemble.py and artefacts.py write what devices fetch.
"""

from __future__ import annotations

from .build import EngineOptions, FleetPlan, build_fleet, plan_fleet, write_steps
from .local import end_with_parent, say_events
from .manifest import FleetManifest, read_fleet
from .mirror import Mirror, run_mirrored
from .report import FleetReport, VariantReport
from .schedule import FleetProgress
from .step import Done, run_step

__all__ = [
    "Done",
    "EngineOptions",
    "FleetManifest",
    "FleetPlan",
    "FleetProgress",
    "FleetReport",
    "Mirror",
    "VariantReport",
    "build_fleet",
    "end_with_parent",
    "plan_fleet",
    "read_fleet",
    "run_mirrored",
    "run_step",
    "say_events",
    "write_steps",
]
