"""A session lent to one generation after another, and what they find in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .errors import InvalidArgumentError
from .options import GenerateOptions

if TYPE_CHECKING:
    from . import _native
    from .stream import TokenStream


class SessionLease:
    """A session lent to one generation, which keeps what it can of the tokens in it.

    `ended` is called once, when the text is over; the session itself stays open.
    """

    def __init__(
        self,
        session: _native.Session,
        *,
        ended: Callable[[TokenStream], None],
        dropped_tokens: int = 0,
        dropped_turns: int = 0,
        is_from_disk: bool = False,
        is_endless: bool = False,
    ) -> None:
        self.session = session
        self.ended = ended
        self.dropped_tokens = dropped_tokens
        self.dropped_turns = dropped_turns
        self.is_from_disk = is_from_disk  # what the session holds now
        self.is_endless = is_endless  # the session makes room where there is none
        self.n_held = 0
        self.n_from_disk = 0  # of these
        self.first_mismatch: int | None = None

    @staticmethod
    def check(options: GenerateOptions) -> None:
        """Refuse what a session is made with."""
        if options.compress > 1 or options.window > 0:
            message = "compress and window are for texts of their own; use Chat.compress()"
            raise InvalidArgumentError(message, code="invalid_argument")
        if options.namespace:
            message = "namespace is for whole chats; give it to Model.chat()"
            raise InvalidArgumentError(message, code="invalid_argument")

    def begin(self, prompt: list[int]) -> None:
        """Rewind to the longest common prefix, short of the last token, and queue the rest."""
        n_same, n_most = n_common(self.session.token_ids, prompt)
        self.session.rewind(n_same)
        self.session.append(prompt[n_same:])
        self.n_held = n_same - self.session.n_recompute
        self.n_from_disk = self.n_held if self.is_from_disk else 0
        self.first_mismatch = n_same if n_same < n_most else None


def n_common(held: Sequence[int], prompt: Sequence[int]) -> tuple[int, int]:
    """Tokens that a prompt has in common with those held, and the most that it could have: its last
    one is always processed."""
    n_most = min(len(held), len(prompt) - 1)
    return next((n for n in range(n_most) if held[n] != prompt[n]), n_most), n_most


def context_for(session: _native.Session, prompt: Sequence[int]) -> int:
    """How many tokens a text may come to have that begins with `prompt` and goes on in `session`:
    more than its n_ctx where what it holds of them was compressed."""
    n_same, _ = n_common(session.token_ids, prompt)
    return session.most_tokens_after(max(n_same, 0))
