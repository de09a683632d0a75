"""Offline tools: a checkpoint in, one compact file out.

Of the SDK they import edgellm.edgefile, edgellm.errors and the native weight encoder, nothing
else. torch appears only in reference.py and is imported when that is.
"""

from __future__ import annotations

from .pipeline import ConvertProgress, convert, plan_conversion
from .recipe import preset_names
from .report import ConvertPlan, ConvertReport, PlannedTensor, TensorReport
from .spec import LayerSpec, ModelSpec

__all__ = [
    "ConvertPlan",
    "ConvertProgress",
    "ConvertReport",
    "LayerSpec",
    "ModelSpec",
    "PlannedTensor",
    "TensorReport",
    "convert",
    "plan_conversion",
    "preset_names",
]
