"""Guesses from the text itself: what came after the last tokens when they were there before."""

from __future__ import annotations

from collections.abc import Sequence

MAX_MATCH = 4
MIN_MATCH = 2


def guess(ids: Sequence[int], n_tokens: int) -> list[int]:
    """Up to n_tokens that followed the latest earlier occurrence of the longest ending of ids, of
    MAX_MATCH to MIN_MATCH tokens; none if there was none."""
    if n_tokens < 1:
        return []
    for length in range(min(MAX_MATCH, len(ids) - 1), MIN_MATCH - 1, -1):
        ending = list(ids[-length:])
        for start in range(len(ids) - length - 1, -1, -1):
            if list(ids[start : start + length]) == ending:
                return list(ids[start + length : start + length + n_tokens])
    return []
