"""One text's way through a grammar: which tokens may come next, and which must.

Knows ids and a matcher of llguidance, nothing of sessions and text.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import EdgeError, InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from llguidance import LLMatcher

Words = npt.NDArray[np.uint32]  # one bit for each id, the lowest id in the lowest bit
# Tokens at the end of which a JSON answer is brought to an end, at most half of max_tokens.
_LANDING_TOKENS = 256


def words_of(ids: set[int] | frozenset[int], n_vocab: int) -> Words:
    """uint32 [ceil(n_vocab / 32)] with the bits of `ids` set."""
    bits = np.zeros(-(-n_vocab // 32) * 32, np.uint8)
    bits[sorted(ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)


@dataclass(frozen=True)
class Landing:
    """How an answer that runs out of tokens is closed: where one of the ids of a step is allowed,
    one of the first such step is taken."""

    steps: tuple[Words, ...]


class Constraint:
    """Of one text; `matcher` is its own. `landing`: None where an answer may be cut off."""

    def __init__(
        self,
        matcher: LLMatcher,
        n_vocab: int,
        stop_ids: frozenset[int],
        max_tokens: int,
        landing: Landing | None,
    ) -> None:
        self._matcher = matcher
        self._n_vocab = n_vocab
        self._stop_ids = stop_ids
        self._stops = words_of(stop_ids, n_vocab)
        self._n_left = max_tokens
        self._landing = landing
        self._n_landing = min(_LANDING_TOKENS, max_tokens // 2)
        self._forced: deque[int] = deque()
        self._force()

    @property
    def forced(self) -> int | None:
        """The id that comes next whatever the model says; it was taken into account already."""
        return self._forced[0] if self._forced else None

    @property
    def is_over(self) -> bool:
        """The text is complete, and nothing can follow, or nothing should."""
        if self._forced:
            return False
        return self._matcher.is_stopped() or (self._is_landing and self._matcher.is_accepting())

    def allowed(self) -> Words:
        """The ids that may come next. Those that end the text are among them where the grammar
        allows an end, and nowhere else."""
        if self._forced:
            return words_of({self._forced[0]}, self._n_vocab)
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        self._check()
        words: Words = mask[: len(self._stops)] & ~self._stops
        if self._matcher.is_accepting():
            words |= self._stops
        return self._landed(words) if self._is_landing else words

    def take(self, token_id: int) -> bool:
        """The text goes on with `token_id`, an allowed one. True if it was forced."""
        self._n_left -= 1
        if self._forced:
            self._forced.popleft()
            return True
        if token_id not in self._stop_ids:
            self._matcher.consume_token(token_id)
            self._check()
            self._force()
        return False

    @property
    def _is_landing(self) -> bool:
        return self._landing is not None and self._n_left <= self._n_landing

    def _landed(self, words: Words) -> Words:
        assert self._landing is not None
        for step in self._landing.steps:
            if (words & step).any():
                return words & step
        return words

    def _force(self) -> None:
        ids = self._matcher.compute_ff_tokens()
        if ids and all(token_id < self._n_vocab for token_id in ids):
            self._matcher.consume_tokens(ids)
            self._forced.extend(ids)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise grammar_error(self._matcher.get_error(), "at this place of an answer")


# What llguidance says of what it cannot do, and of its limits.
_UNSUPPORTED = ("nimplemented", "not supported", "nknown format", "nsupported")
_TOO_MUCH = ("fuel", "too large", "oo many", "oo complex", "limit", "exceed", "max is")
_NOTHING = "NoExtension"


def grammar_error(message: str, where: str) -> EdgeError:
    """What llguidance refused, as an error of ours; `where` says at what."""
    short = " ".join(message.replace("<non-verbose/>", "").split())[:400]
    if short.startswith(_NOTHING):
        return InvalidArgumentError(
            f"response_format is wrong {where}: nothing satisfies it", code="invalid_argument"
        )
    if any(word in short for word in _TOO_MUCH):
        return UnsupportedError(
            f"response_format is too complex {where}: {short}; make it smaller",
            code="feature_unsupported",
        )
    if any(word in short for word in _UNSUPPORTED):
        return UnsupportedError(
            f"response_format cannot be enforced {where}: {short}; leave it out, or give "
            '"strict": false, with which an answer may break it',
            code="feature_unsupported",
        )
    return InvalidArgumentError(
        f"response_format is wrong {where}: {short}", code="invalid_argument"
    )
