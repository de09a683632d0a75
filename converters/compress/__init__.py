"""Smaller models by a list of steps: pruned, healed, quantized, refined, with a report.

run.py is the door; steps.py has the table of steps, recipe.py says what a run is. Every step's
result is kept under a key of all that it depends on, so that a run goes on where it stopped and
another recipe takes what is the same. Knows what steps are called, not what they do.
"""

from __future__ import annotations

from .recipe import CompressRecipe, read_compress_recipe
from .report import CompressReport, StepReport
from .run import CompressProgress, compress

__all__ = [
    "CompressProgress",
    "CompressRecipe",
    "CompressReport",
    "StepReport",
    "compress",
    "read_compress_recipe",
]
