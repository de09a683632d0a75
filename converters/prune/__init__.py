"""Pruning: parts of a checkpoint that do little on a text go; what is left is a checkpoint again.

run.py is the door; options.py says what can be asked for. Healing is training (distill/). torch is
imported where a model is scored, on first use.
"""

from __future__ import annotations

from .options import PredictOptions, PruneOptions, PruneRecipe, read_prune_recipe
from .run import PruneReport, predict, prune

__all__ = [
    "PredictOptions",
    "PruneOptions",
    "PruneRecipe",
    "PruneReport",
    "predict",
    "prune",
    "read_prune_recipe",
]
