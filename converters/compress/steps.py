"""The table of steps: the one place where a step is added."""

from __future__ import annotations

from ..calibrate.work import METHODS_VERSION
from ..distill.recipe import LEARN_VERSION
from .quantize_step import QuantizeOptions, run_quantize
from .step import CHECKPOINT, EDGE, Step
from .train_steps import HealOptions, RefineOptions, run_learning

STEPS: dict[str, Step] = {
    "heal": Step(
        HealOptions, CHECKPOINT, CHECKPOINT, ("train",), f"1.{LEARN_VERSION}", run_learning
    ),
    "quantize": Step(
        QuantizeOptions, CHECKPOINT, EDGE, ("calibration",), f"1.{METHODS_VERSION}", run_quantize
    ),
    "refine": Step(RefineOptions, EDGE, EDGE, ("train",), f"1.{LEARN_VERSION}", run_learning),
}
