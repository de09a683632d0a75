"""How likely given continuations of a prompt are.

The prompt is processed once; every continuation goes on from it in a sequence of its own, several
of them in the same steps of the model. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .batch import processed, run_lanes
from .errors import ContextOverflowError, InvalidArgumentError
from .stream import checked_ids

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from . import _native

Pair = tuple[Sequence[int], Sequence[int]]  # ids of a prompt, of what continues it


@dataclass(frozen=True)
class Score:
    """Of one continuation. `logprobs[i]` is the natural-log probability of `token_ids[i]` after the
    prompt and the tokens before it, under the model itself; `logprob` is their sum, that of the
    whole. `is_greedy`: each is the most likely token at its place."""

    token_ids: list[int]
    logprobs: list[float]
    logprob: float
    is_greedy: bool


@dataclass(frozen=True)
class PromptScore:
    """Of the tokens of one text from its second on: their natural-log probabilities, and the most
    likely ids at their places, best first."""

    logprobs: list[float]
    top_logprobs: list[tuple[tuple[int, float], ...]]


def score_prompts(
    model: _native.Model,
    prompts: Sequence[Sequence[int]],
    n_top: int,
    *,
    priority: int = 0,
) -> list[PromptScore]:
    """How likely each token of texts is after those before it, the same numbers as
    `score_pairs()`. InvalidArgumentError, ContextOverflowError."""
    every = [checked_ids(ids, model.n_vocab, f"prompt {at}") for at, ids in enumerate(prompts)]
    longer = [ids for ids in every if len(ids) > 1]
    for ids in longer:
        if len(ids) - 1 > model.n_ctx_train:
            message = f"{len(ids)} ids, but the context of this model is {model.n_ctx_train}"
            raise ContextOverflowError(message, code="context_overflow")
    readers = [_Reader(ids[1:], n_skip=0, n_top=n_top) for ids in longer]

    def start(at: int) -> _native.Session:
        from . import _native

        session = _native.Session(model, len(longer[at]), reuse_prefix=False)
        session.set_priority(priority)
        session.append(longer[at][:-1])
        return session

    run_lanes(len(longer), start, "logits", lambda at, rows: readers[at].take(rows))
    scores = iter(readers)
    none = PromptScore([], [])
    return [next(scores).prompt_score() if len(ids) > 1 else none for ids in every]


def score_pairs(
    model: _native.Model,
    pairs: Sequence[Pair],
    adapter: _native.Adapter | None = None,
    *,
    priority: int = 0,
    namespace: str = "",
) -> list[Score]:
    """All pairs are checked before any work: InvalidArgumentError, ContextOverflowError."""
    checked = [_checked(model, at, *pair) for at, pair in enumerate(pairs)]
    if not checked:
        return []
    # The last id is only predicted, never processed.
    inputs = [[*prompt, *more][:-1] for prompt, more in checked]
    n_same = min(len(prompt) for prompt, _ in checked) - 1
    first = inputs[0]
    n_same = next((n for n in range(n_same) if any(i[n] != first[n] for i in inputs)), n_same)
    readers = [_Reader(more, n_skip=len(prompt) - 1 - n_same) for prompt, more in checked]

    def new(n_ctx: int) -> _native.Session:
        from . import _native

        session = _native.Session(model, n_ctx, adapter, namespace=namespace)
        session.set_priority(priority)
        return session

    base = processed(new(max(map(len, inputs))), first[:n_same]) if n_same else None

    def start(at: int) -> _native.Session:
        session = new(len(inputs[at])) if base is None else base.fork()
        session.append(inputs[at][n_same:])
        return session

    try:
        run_lanes(len(inputs), start, "logits", lambda at, rows: readers[at].take(rows))
    finally:
        if base is not None:
            base.close()
    return [reader.score() for reader in readers]


def split_texts(
    tokenizer: _native.Tokenizer, front: Callable[[], list[int]], prompt: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of a text that continues it, as lm-evaluation-harness cuts them.

    Spaces at the end of the prompt go to the continuation, and both are tokenized together, since
    a word and the space before it are one token. An empty prompt becomes `front()`: what stands
    before a text that has nothing before it, one id at least.
    """
    stripped = prompt.rstrip()
    continuation = prompt[len(stripped) :] + continuation
    if not stripped:
        return front(), tokenizer.encode(continuation, special=False, bos=False)
    n_prompt = len(tokenizer.encode(stripped, special=False, bos=True))
    whole = tokenizer.encode(stripped + continuation, special=False, bos=True)
    n_prompt = min(n_prompt, len(whole) - 1)  # both may have become one token
    if n_prompt == 0:
        return front(), whole
    return whole[:n_prompt], whole[n_prompt:]


class _Reader:
    """Takes the rows of logits of one sequence, the first `n_skip` of which say nothing of the
    continuation."""

    def __init__(self, continuation: list[int], n_skip: int, n_top: int = 0) -> None:
        self._ids = continuation
        self._n_skip = n_skip
        self._n_top = n_top
        self._top: list[tuple[tuple[int, float], ...]] = []
        self._logprobs: list[float] = []
        self._is_greedy = True

    def take(self, rows: npt.NDArray[np.float32]) -> None:
        import numpy as np

        from .evaluation.scores import rows_of_logits

        n_skipped = min(self._n_skip, len(rows))
        self._n_skip -= n_skipped
        rows = rows[n_skipped:]
        if len(rows) == 0:
            return
        begin = len(self._logprobs)
        targets = np.array(self._ids[begin : begin + len(rows)], np.int64)
        block = rows_of_logits(rows, targets)
        self._logprobs += block.target_log_probs.tolist()
        self._is_greedy &= bool((block.top_ids == targets).all())
        for row in block.log_probs if self._n_top > 0 else ():
            most = np.argpartition(-row, min(self._n_top, len(row)) - 1)[: self._n_top]
            best = most[np.lexsort((most, -row[most]))]
            self._top.append(tuple((int(one), float(row[one])) for one in best))

    def score(self) -> Score:
        return Score(self._ids, self._logprobs, math.fsum(self._logprobs), self._is_greedy)

    def prompt_score(self) -> PromptScore:
        return PromptScore(self._logprobs, self._top or [()] * len(self._logprobs))


def _checked(
    model: _native.Model, at: int, prompt: Sequence[int], continuation: Sequence[int]
) -> tuple[list[int], list[int]]:
    before = checked_ids(prompt, model.n_vocab, "prompt")
    after = checked_ids(continuation, model.n_vocab, f"continuation {at}")
    if not before or not after:
        empty = f"continuation {at}" if before else "the prompt"
        message = f"{empty} has no tokens; give at least one character or one id"
        raise InvalidArgumentError(message, code="invalid_argument")
    n_ids = len(before) + len(after)
    if n_ids - 1 > model.n_ctx_train:
        message = (
            f"prompt and continuation {at} have {n_ids} tokens, and the context of this model is "
            f"{model.n_ctx_train}; cut {n_ids - 1 - model.n_ctx_train} of the prompt"
        )
        raise ContextOverflowError(message, code="context_overflow")
    return before, after
