"""Offline tools: a checkpoint in, one compact file out.

Of the SDK they import edgellm.edgefile, edgellm.errors, edgellm.chat_template and the native weight
encoder and tokenizer, nothing else. torch is imported by reference.py and by what calibrates, on
first use.
"""

from __future__ import annotations

from .calibrate import CalibrationTokens
from .pipeline import convert, plan_conversion
from .recipe import Recipe, preset_names
from .recipe_file import read_recipe
from .report import ConvertPlan, ConvertProgress, ConvertReport, PlannedTensor, TensorReport
from .spec import LayerSpec, ModelSpec

__all__ = [
    "CalibrationTokens",
    "ConvertPlan",
    "ConvertProgress",
    "ConvertReport",
    "LayerSpec",
    "ModelSpec",
    "PlannedTensor",
    "Recipe",
    "TensorReport",
    "convert",
    "plan_conversion",
    "preset_names",
    "read_recipe",
]
