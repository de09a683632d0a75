"""What comes back: tokens, generations and the numbers that go with them. Plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .confidence import TokenSignals

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Token:
    """One generated token. `text` may be empty while a character or a stop string is incomplete,
    and then comes with a later token; the texts of all tokens join to the whole answer.
    `top_logprobs` are the most likely ids with their log probabilities, best first, as many as
    `logprobs=` asked for. `forced`: `response_format` left no choice; the model was asked only if
    `logprobs=` is above 0 or `signals=` is set, else its `logprob` is 0. `signals`: what
    `signals=True` asked for (docs/CONFIDENCE.md)."""

    id: int
    text: str
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] = ()
    forced: bool = False
    signals: TokenSignals | None = None


@dataclass(frozen=True)
class Stats:
    """Measured, not estimated. Times are wall-clock; speeds are 0.0 where nothing was timed.

    `reused_tokens` of the prompt were not computed: their KV was there, from this text or another.
    `ttft_ms` runs from the call to the first token; `tokens_per_s` counts the tokens after it.
    """

    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    ttft_ms: float
    prefill_tokens_per_s: float
    tokens_per_s: float
    peak_rss_bytes: int
    dropped_tokens: int = 0  # of the conversation, to fit the context; 0 unless a policy allows it
    # Where the KV of the reused tokens was before this text; "disk" if any of it was there.
    reused_from: Literal["ram", "disk"] | None = None
    # Of the reused tokens, those whose KV was read from disk: a saved chat, or `kv_cache_dir`.
    reused_disk_tokens: int = 0
    # Tokens that were guessed and verified beside others, and those of them that were right; the
    # same by kind of guessing; and what it has saved, as far as measured. docs/SPECULATION.md.
    speculating: bool = False
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    drafters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    saved_ms: float = 0.0
    # Steps that took in fewer guesses or tokens of the prompt for the sake of latency_budget_ms.
    capped_steps: int = 0
    # Of the generated tokens, those that `response_format` left no choice for.
    forced_tokens: int = 0
    # Position in the prompt of the first token that is not what the chat's KV has there: from it on
    # the prompt was computed. None where the KV was a beginning of the prompt.
    first_mismatch: int | None = None


@dataclass(frozen=True)
class KeptTokens:
    """What the KV cache holds of a text out of which tokens were taken: `ranges` (first, end) of
    the tokens, the prompt's from 0 on, that at least one head still sees; each head sees
    `n_per_head` tokens, of the `n_read` that were read."""

    ranges: tuple[tuple[int, int], ...]
    n_per_head: int
    n_read: int


@dataclass(frozen=True)
class Generation:
    """A finished text. `logprobs[i]` is the natural-log probability of `token_ids[i]` under the
    model itself, before rules, temperature and filters, and `top_logprobs[i]` are the most likely
    ids at that place, if `logprobs=` asked for them. An end-of-text token is the last id.
    `confidence`: the geometric mean of the probabilities of the tokens that were not forced, 0 to
    1; `signals`: of every token, if `signals=True` asked for them (docs/CONFIDENCE.md)."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    stats: Stats
    top_logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    dropped_turns: int = 0  # oldest turns of a chat that are no longer in the context
    kept: KeptTokens | None = None  # None: the KV cache held every token to the end
    confidence: float = 1.0
    signals: list[TokenSignals] = field(default_factory=list)


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model is and what it costs."""

    path: str
    file_bytes: int
    n_vocab: int
    n_ctx: int
    n_layers: int
    n_parameters: int
    weight_formats: dict[str, int]  # format name -> number of tensors
    eos_ids: list[int]
    has_tokenizer: bool
    kv_format: str
    kv_bytes_per_token: int  # of a token that all layers still see
    kv_bytes: int  # of n_ctx tokens, the most that a session takes
    backend: str
    isa: str
    threads: int
    load_ms: float
    verified_fraction: float
    root: str  # SHA-256 over all weights, hex
    host_layers: int = 0  # that run on the CPU, because the GPU's memory is short
    graph_tokens: int = 0  # that graphs hold, where the CPU computes those behind them; else 0
    source: dict[str, Any] = field(default_factory=dict)
    # Tokens that went to each expert since load(), by layer; layers without experts are left out.
    expert_load: dict[int, list[int]] = field(default_factory=dict)
