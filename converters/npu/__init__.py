"""Models for NPUs: graphs of fixed shapes, compiled by the vendors' own tools.

A ModelSpec becomes a graph in a small representation of ours (decoder.py, ir.py), which numpy runs
(interpret.py) and which is written for each vendor from there. docs/NPU.md.
"""

from __future__ import annotations

from .compare import Difference
from .run import NpuOptions, NpuReport, export_npu
from .targets import PREFIX, TARGETS

__all__ = ["PREFIX", "TARGETS", "Difference", "NpuOptions", "NpuReport", "export_npu"]
