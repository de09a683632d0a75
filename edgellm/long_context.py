"""Long contexts in little memory: what a text asks of its session, and what was kept of it.

docs/KV.md says how tokens are chosen and what that costs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .errors import InvalidArgumentError
from .results import KeptTokens

if TYPE_CHECKING:
    from . import _native

# The first tokens, whatever they say, take what attention nobody else gets: without them a model
# that was trained on whole texts falls apart (StreamingLLM). As many as the KV cache keeps in F16
# whatever its format.
N_SINK = 32
_ROOM = 32  # tokens that leave at a time; whole pages of the KV cache
_COMPRESS_SINK = 4
_COMPRESS_WINDOW = 32
_LEAST_KEPT = 4


def stream_chat(session: _native.Session) -> None:
    """A chat's session will never be full: three quarters of its context stay."""
    n_ctx = session.n_ctx
    if n_ctx < 4 * _ROOM:
        message = f"policy 'shift' needs an n_ctx of at least {4 * _ROOM}, but it is {n_ctx}"
        raise InvalidArgumentError(message, code="invalid_argument")
    session.stream_within(N_SINK, n_ctx * 3 // 4 - N_SINK)


def context_of(window: int, n_most: int) -> int:
    """The context of a session that is never full, where the first 32 and at least `window` last
    tokens stay. With room for a quarter of the window: every so many tokens, keys are turned."""
    room = max(_ROOM, window // 4 // _ROOM * _ROOM)
    if window + N_SINK + _ROOM > n_most:
        message = (
            f"window is {window}, but with {N_SINK + _ROOM} tokens besides it must be within the "
            f"{n_most} of this model"
        )
        raise InvalidArgumentError(message, code="invalid_argument")
    return min(N_SINK + window + room, n_most)


def compress_session(session: _native.Session, ratio: float) -> None:
    """Leave one of `ratio` tokens; nothing happens where so few are left anyway."""
    n_keep = max(math.ceil((session.n_tokens - session.n_dropped) / ratio), _LEAST_KEPT)
    # Of short texts, no more than half and an eighth of what is kept.
    window, n_sink = min(_COMPRESS_WINDOW, n_keep // 2), min(_COMPRESS_SINK, n_keep // 8)
    session.compress(n_keep, n_sink=n_sink, window=window)


def kept_tokens(session: _native.Session) -> KeptTokens | None:
    """None if every token is there."""
    n_dropped = session.n_dropped
    if n_dropped == 0:
        return None
    n_read = session.n_tokens
    return KeptTokens(tuple(session.kept_ranges), n_read - n_dropped, n_read)
