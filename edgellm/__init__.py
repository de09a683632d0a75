"""edgellm: small language models on your own device.

    import edgellm
    model = edgellm.load("model.edge")
    for token in model.stream("Once upon a time", max_tokens=128):
        print(token.text, end="", flush=True)

Only the verb `edgellm pull` opens network connections. Importing this package is cheap: what it
offers, numpy and the native module are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .errors import (
    Cancelled,
    ContextOverflowError,
    DeviceError,
    EdgeError,
    FormatError,
    IntegrityError,
    InvalidArgumentError,
    MemoryBudgetError,
    NumericError,
    SessionError,
    TemplateError,
    ToolCallError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from .adapter import Adapter, AdapterInfo
    from .batch import TokenBatch
    from .cascade import Attempt, Cascade, CascadeAnswer
    from .chat import Chat
    from .chat_format import ChatPrompt
    from .chat_template import ChatTemplate
    from .confidence import (
        AnswerSignals,
        Calibration,
        TokenSignals,
        answer_signals,
        spilled_energies,
    )
    from .governor import Governor, GovernorState
    from .model import Model, load
    from .pretrained import from_pretrained
    from .results import Generation, ModelInfo, Stats, Token
    from .scoring import Score
    from .stream import TokenStream
    from .streamers import TextIteratorStreamer, TextStreamer
    from .transcript import Turn
    from .watching import CancelToken, PrefillProgress

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "AdapterInfo",
    "AnswerSignals",
    "Attempt",
    "Calibration",
    "CancelToken",
    "Cancelled",
    "Cascade",
    "CascadeAnswer",
    "Chat",
    "ChatPrompt",
    "ChatTemplate",
    "ContextOverflowError",
    "DeviceError",
    "EdgeError",
    "FormatError",
    "Generation",
    "Governor",
    "GovernorState",
    "IntegrityError",
    "InvalidArgumentError",
    "MemoryBudgetError",
    "Model",
    "ModelInfo",
    "NumericError",
    "PrefillProgress",
    "Score",
    "SessionError",
    "Stats",
    "TemplateError",
    "TextIteratorStreamer",
    "TextStreamer",
    "Token",
    "TokenBatch",
    "TokenSignals",
    "TokenStream",
    "ToolCallError",
    "Turn",
    "UnsupportedError",
    "__version__",
    "answer_signals",
    "from_pretrained",
    "load",
    "spilled_energies",
]


# Where they are, as type checkers read it above: a program that prints its help needs none of them.
_PLACES = {
    "adapter": ("Adapter", "AdapterInfo"),
    "batch": ("TokenBatch",),
    "cascade": ("Attempt", "Cascade", "CascadeAnswer"),
    "chat": ("Chat",),
    "chat_format": ("ChatPrompt",),
    "chat_template": ("ChatTemplate",),
    "confidence": (
        *("AnswerSignals", "Calibration", "TokenSignals"),
        *("answer_signals", "spilled_energies"),
    ),
    "governor": ("Governor", "GovernorState"),
    "model": ("Model", "load"),
    "pretrained": ("from_pretrained",),
    "results": ("Generation", "ModelInfo", "Stats", "Token"),
    "scoring": ("Score",),
    "stream": ("TokenStream",),
    "streamers": ("TextIteratorStreamer", "TextStreamer"),
    "transcript": ("Turn",),
    "watching": ("CancelToken", "PrefillProgress"),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> object:
    """What is loaded at its first use; for the native module `cpu.py` says why."""
    if name == "_native":
        from .cpu import load_native

        return load_native()
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_PLACE_OF[name]}", __name__), name)
    globals()[name] = found  # from now on it is found without this
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
