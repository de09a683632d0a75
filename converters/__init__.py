"""Offline tools: a checkpoint in, one compact file out.

Of the SDK they import what files are made of (edgefile, chat_template, fleet, npu), how they are
read and written, errors, the planner and the native weight encoder and tokenizer, nothing else.
torch is imported by reference.py and by what calibrates, on first use.
"""

from __future__ import annotations

from .allocate.limits import Allocation, Limit, convert_within
from .allocate.run import AllocateOptions
from .calibrate import CalibrationTokens
from .calibrate.held_out import BUILTIN_TEXT
from .pipeline import convert, plan_conversion
from .quant.methods import Method
from .recipe import Recipe, preset_names
from .recipe_file import read_recipe, write_recipe
from .report import (
    ConvertPlan,
    ConvertProgress,
    ConvertReport,
    Divergence,
    PlannedTensor,
    TensorReport,
)
from .spec import LayerSpec, ModelSpec

__all__ = [
    "BUILTIN_TEXT",
    "AllocateOptions",
    "Allocation",
    "CalibrationTokens",
    "ConvertPlan",
    "ConvertProgress",
    "ConvertReport",
    "Divergence",
    "LayerSpec",
    "Limit",
    "Method",
    "ModelSpec",
    "PlannedTensor",
    "Recipe",
    "TensorReport",
    "convert",
    "convert_within",
    "plan_conversion",
    "preset_names",
    "read_recipe",
    "write_recipe",
]
