"""Log probability of given continuations, and greedy answers, with the KV cache reused.

Every request is a prompt and what may follow it. The part of it that the session already holds is
kept by rewinding, so the shared prompt of a question's choices is processed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..closing import Closing
from ..errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from ..options import GenerateOptions
from ..scoring import split_texts
from ..stream import TokenStream
from .models import EvaluatedModel, row_blocks, run_tokens, token_logits
from .scores import rows_of_logits


@dataclass(frozen=True)
class Continuation:
    """`log_prob`: natural logarithm of the probability of all its tokens together. `is_greedy`:
    every one of them is the most likely token at its place."""

    log_prob: float
    n_tokens: int
    is_greedy: bool


class Continuations(Closing):
    """One sequence of a model. A context manager: leaving the block frees its KV cache."""

    def __init__(self, model: EvaluatedModel) -> None:
        self._model = model
        self.n_ctx = model.native.n_ctx_train
        self._session = model.session(self.n_ctx)
        self.n_reused_tokens = 0  # so far: prompt tokens that were not processed again

    def score(self, prompt: Sequence[int], continuation: Sequence[int]) -> Continuation:
        """How likely `continuation` is right after `prompt`, which has at least one id.

        ContextOverflowError if both together have more than n_ctx + 1 ids: the last is only
        predicted, never processed.
        """
        import numpy as np

        if not prompt or not continuation:
            message = "a prompt and a continuation need at least one id each"
            raise InvalidArgumentError(message, code="invalid_argument")
        ids = [*prompt, *continuation]
        inputs = ids[:-1]
        if len(inputs) > self.n_ctx:
            message = (
                f"prompt and continuation have {len(ids)} tokens, and the context of "
                f"{self._model.name} is {self.n_ctx}; shorten the prompt"
            )
            raise ContextOverflowError(message, code="context_overflow")
        first = len(prompt) - 1  # its logits say what comes first
        held = self._session.token_ids
        n_most = min(len(held), first)
        n_same = next((n for n in range(n_most) if held[n] != inputs[n]), n_most)
        self._session.rewind(n_same)
        self.n_reused_tokens += n_same
        run_tokens(self._session, inputs[n_same:first])
        log_prob, is_greedy = 0.0, True
        for start, stop in row_blocks(len(continuation), self._model.n_vocab):
            logits = token_logits(self._session, inputs[first + start : first + stop])
            targets = np.array(continuation[start:stop], np.int64)
            rows = rows_of_logits(logits, targets)
            log_prob += float(rows.target_log_probs.sum())
            is_greedy &= bool((rows.top_ids == targets).all())
        return Continuation(log_prob, len(continuation), is_greedy)

    def close(self) -> None:
        self._session.close()


def split_continuation(
    model: EvaluatedModel, prompt: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of a text that continues it: see `split_texts()`."""
    return split_texts(model.tokenizer, lambda: front_ids(model), prompt, continuation)


def front_ids(model: EvaluatedModel) -> list[int]:
    """What stands before a text that has nothing before it: one id at least."""
    front = model.prefix_ids or model.native.eos_ids[:1]
    if not front:
        message = f"{model.name} has no token to begin a text with; give a prompt that is not empty"
        raise UnsupportedError(message, code="tokenizer_unsupported")
    return list(front)


def generated_text(model: EvaluatedModel, prompt: Sequence[int], options: GenerateOptions) -> str:
    """What the model says next, up to a stop string or an end-of-text token."""
    with TokenStream(model.native, prompt, options) as stream:
        return stream.result().text
