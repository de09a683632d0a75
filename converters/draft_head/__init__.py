"""A draft head: one small layer that guesses what the model says next, stored in the model's file.

EAGLE (Li et al. 2024, arXiv:2401.15077) with the training-time test of EAGLE-3 (Li et al. 2025,
arXiv:2503.01840) and a trimmed vocabulary (FR-Spec, Zhao et al. 2025, arXiv:2502.14856). It changes
no answer: the model judges every guess. run.py is the door; torch is imported on first use.
"""

from __future__ import annotations

from .options import DraftHeadOptions
from .report import DepthFigures, DraftHeadReport
from .run import add_draft_head

__all__ = ["DepthFigures", "DraftHeadOptions", "DraftHeadReport", "add_draft_head"]
