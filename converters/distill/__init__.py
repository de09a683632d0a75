"""Training: from scratch, against a teacher, and of a compressed file in its own formats.

run.py is the door; recipe.py says what a run is. A run keeps what it has done in a folder and goes
on from there, to the same bits. torch is imported by what needs it, on first use.
"""

from __future__ import annotations

from .curves import read_curve
from .recipe import TrainRecipe, read_train_recipe
from .run import TrainProgress, TrainReport, train

__all__ = [
    "TrainProgress",
    "TrainRecipe",
    "TrainReport",
    "read_curve",
    "read_train_recipe",
    "train",
]
