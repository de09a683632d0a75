"""What the screen asks of an engine, and what an engine answers. Plain frozen data, no behaviour.

Texts in here come from a model or a user: they are raw, and whoever shows them sanitizes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.results import FinishReason
from edgellm.transcript import Exchange


@dataclass(frozen=True)
class ModelCard:
    """What the screen says about the model. `varies`: another try can give another reply. `root`:
    the hash of its weights, which drawn tokens belong to."""

    name: str
    details: str
    n_ctx: int
    varies: bool
    root: str = ""


@dataclass(frozen=True)
class Ask:
    """A reply to `message`, after `past`. The engine needs to remember nothing.

    `attempt`: 0 for the first try, then 1, 2, ..., each with a seed of its own. `begun`: the reply
    as far as it is there, to be continued. `tools`: definitions of what the model may call.
    """

    message: str
    past: tuple[Exchange, ...] = ()
    role: str = "user"
    system: str | None = None
    attempt: int = 0
    begun: Exchange | None = None
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class SwitchModel:
    """Another model from now on."""

    name: str


@dataclass(frozen=True)
class Measure:
    """How fast the model is here: prompts of `n_prompt` tokens and replies of `n_reply`, `n_rounds`
    times. The chat stays as it is."""

    n_prompt: int
    n_reply: int
    n_rounds: int


Request = Ask | SwitchModel | Measure


@dataclass(frozen=True)
class Call:
    """What the model asks a tool for. `arguments` are JSON."""

    name: str
    arguments: dict[str, Any]


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
    reply they are not. `dropped_turns` is how many oldest turns left the context for it.
    `exchange`: message and reply as the next request should give them; `calls`: of tools, in it."""

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
    disk_tokens: int = 0  # of those reused, read from disk
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    exchange: Exchange | None = None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class ReplyFailed:
    """The request or the reply failed. `started`: a ReplyStarted came before; `kept`: as above."""

    message: str
    code: str
    started: bool
    kept: bool


@dataclass(frozen=True)
class ModelSwitched:
    """The answer to SwitchModel."""

    card: ModelCard


@dataclass(frozen=True)
class Measured:
    """A point of Measure: in round `n_round` so many tokens a second, of the prompt or the reply.
    `is_last`: nothing follows."""

    n_round: int
    prompt_tokens_per_s: float
    reply_tokens_per_s: float
    is_last: bool = False


Event = ReplyStarted | TextPiece | ReplyEnded | ReplyFailed | ModelSwitched | Measured
