"""What the screen asks of an engine, and what an engine answers. Plain frozen data, no behaviour.

Texts in here come from a model or a user: they are raw, and whoever shows them sanitizes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.results import FinishReason


@dataclass(frozen=True)
class ModelCard:
    """What the screen says about the model. `varies`: another try can give another reply."""

    name: str
    details: str
    n_ctx: int
    varies: bool


@dataclass(frozen=True)
class Send:
    """A new message."""

    text: str


@dataclass(frozen=True)
class EditLast:
    """Another text in the place of the last message; its reply is forgotten."""

    text: str


@dataclass(frozen=True)
class Regenerate:
    """Another reply to the last message."""


Request = Send | EditLast | Regenerate


@dataclass(frozen=True)
class ReplyStarted:
    """The request fits and is under way; until here nothing has changed."""

    prompt_tokens: int


@dataclass(frozen=True)
class TextPiece:
    """A part of the reply and the number of tokens it stands for."""

    text: str
    n_tokens: int = 1


@dataclass(frozen=True)
class ReplyEnded:
    """The reply is over. `kept`: message and reply are part of the chat; without a single token of
    reply they are not. `dropped_turns` is how many oldest turns left the context for it."""

    finish_reason: FinishReason
    kept: bool
    n_tokens: int
    tokens_per_s: float
    ttft_ms: float
    prompt_tokens: int
    reused_tokens: int
    context_tokens: int
    dropped_turns: int = 0
    dropped_tokens: int = 0


@dataclass(frozen=True)
class ReplyFailed:
    """The request or the reply failed. `started`: a ReplyStarted came before; `kept`: as above."""

    message: str
    code: str
    started: bool
    kept: bool


Event = ReplyStarted | TextPiece | ReplyEnded | ReplyFailed
