"""The figures of a reply in words, for the screen and for line mode."""

from __future__ import annotations

from .messages import ReplyEnded

_WHY = {"stop": "", "length": " · cut", "cancelled": " · stopped"}


def live_figures(n_tokens: int, elapsed_s: float) -> str:
    """While the reply comes; `elapsed_s` since its first token was seen."""
    if n_tokens < 2 or elapsed_s <= 0:
        return _tokens(n_tokens)
    return f"{_tokens(n_tokens)} · {(n_tokens - 1) / elapsed_s:.1f} tokens/s"


def figures(ended: ReplyEnded) -> str:
    """When it is over."""
    speed = f" · {ended.tokens_per_s:.1f} tokens/s" if ended.tokens_per_s > 0 else ""
    first = f"{ended.ttft_ms:.0f} ms" if ended.ttft_ms < 1e3 else f"{ended.ttft_ms / 1e3:.1f} s"
    disk = f" ({ended.disk_tokens} from disk)" if ended.disk_tokens else ""
    drafts = f" · drafts {ended.accepted_tokens} of {ended.drafted_tokens}"
    return (
        f"{_tokens(ended.n_tokens)}{speed} · first after {first} · "
        f"reused {ended.reused_tokens} of {ended.prompt_tokens}{disk}"
        f"{drafts if ended.drafted_tokens else ''}{_WHY[ended.finish_reason]}"
    )


def dropped(ended: ReplyEnded) -> str:
    """What a policy took out of the context."""
    n = ended.dropped_turns
    turns = "the oldest turn" if n == 1 else f"the {n} oldest turns"
    return f"the context was full: {turns} ({_tokens(ended.dropped_tokens)}) left it"


def _tokens(n: int) -> str:
    return "1 token" if n == 1 else f"{n} tokens"
