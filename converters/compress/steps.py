"""The table of steps: the one place where a step is added."""

from __future__ import annotations

from ..calibrate.work import METHODS_VERSION
from ..distill.recipe import LEARN_VERSION
from ..draft_head import DraftHeadOptions
from ..draft_head.run import VERSION as HEAD_VERSION
from ..prune import PruneOptions
from .draft_head_step import run_draft_head
from .prune_step import run_prune
from .quantize_step import QuantizeOptions, run_quantize
from .step import CHECKPOINT, EDGE, Step
from .train_steps import HealOptions, RefineOptions, run_learning

_LEARNING = f"1.{LEARN_VERSION}"
_METHODS = f"1.{METHODS_VERSION}"
_HEAD = f"1.{HEAD_VERSION}"

STEPS: dict[str, Step] = {
    "prune": Step(PruneOptions, CHECKPOINT, CHECKPOINT, ("train",), "1", run_prune),
    "heal": Step(HealOptions, CHECKPOINT, CHECKPOINT, ("train",), _LEARNING, run_learning),
    "quantize": Step(QuantizeOptions, CHECKPOINT, EDGE, ("calibration",), _METHODS, run_quantize),
    "refine": Step(RefineOptions, EDGE, EDGE, ("train",), _LEARNING, run_learning),
    "draft_head": Step(DraftHeadOptions, EDGE, EDGE, ("train",), _HEAD, run_draft_head),
}
