"""Judges models: perplexity, KL divergence against a reference, golden questions, release gates.

    from edgellm.evaluation import EvaluatedModel, Reference, evaluate, read_text, windows_for

Runs models through the native runtime. Formulas stand in docs/EVALUATION.md; numpy is imported when
something is measured, torch never.
"""

from __future__ import annotations

from .bootstrap import Interval
from .compare import Limits, Verdict
from .evaluate import (
    Evaluation,
    Reference,
    TextEvaluation,
    evaluate,
    evaluate_texts,
    windows_for,
)
from .flips import Flips
from .golden import Answer, GoldenResult, ask
from .models import EvaluatedModel, check_same_vocabulary
from .questions import Question, read_questions
from .scores import TokenScores
from .text import ScoredText, TextFigures
from .windows import Text, TextWindows, WindowRule, cut_windows, read_text, text_of

__all__ = [
    "Answer",
    "EvaluatedModel",
    "Evaluation",
    "Flips",
    "GoldenResult",
    "Interval",
    "Limits",
    "Question",
    "Reference",
    "ScoredText",
    "Text",
    "TextEvaluation",
    "TextFigures",
    "TextWindows",
    "TokenScores",
    "Verdict",
    "WindowRule",
    "ask",
    "check_same_vocabulary",
    "cut_windows",
    "evaluate",
    "evaluate_texts",
    "read_questions",
    "read_text",
    "text_of",
    "windows_for",
]
