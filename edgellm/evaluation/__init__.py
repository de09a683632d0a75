"""Judges models: perplexity, KL divergence against a reference, golden questions, release gates.

    from edgellm.evaluation import EvaluatedModel, cut_windows, evaluate_texts, read_text

Runs models through the native runtime. Formulas stand in docs/EVALUATION.md; numpy is imported when
something is measured, torch never.
"""

from __future__ import annotations

from .bootstrap import Interval
from .evaluate import Reference, TextEvaluation, evaluate_texts, windows_for
from .models import EvaluatedModel, check_same_vocabulary
from .scores import TokenScores
from .text import ScoredText, TextFigures
from .windows import Text, TextWindows, WindowRule, cut_windows, read_text, text_of

__all__ = [
    "EvaluatedModel",
    "Interval",
    "Reference",
    "ScoredText",
    "Text",
    "TextEvaluation",
    "TextFigures",
    "TextWindows",
    "TokenScores",
    "WindowRule",
    "check_same_vocabulary",
    "cut_windows",
    "evaluate_texts",
    "read_text",
    "text_of",
    "windows_for",
]
