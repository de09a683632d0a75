"""Text from graphs of fixed shapes: prompts in chunks, kept keys and values, guesses verified.

The same for every executor, which is a `Runner`: what runs one graph. Greedy text with guesses is
the text without. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..errors import ContextOverflowError, InvalidArgumentError, NumericError
from .facts import Facts, GraphFacts, Steps, check_inputs, made_input
from .host import F32Array, KvBuffer, Tensor
from .ngrams import guess

Choose = Callable[[F32Array, int], int]  # logits [n_vocab] and the token's position -> its id


class Runner(Protocol):
    """Runs one graph."""

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name."""


class GraphSession:
    """One sequence. runners: of every graph, by name."""

    def __init__(
        self, facts: Facts, graphs: Sequence[GraphFacts], runners: Mapping[str, Runner]
    ) -> None:
        self._facts, self._steps, self._runners = facts, Steps(tuple(graphs)), runners
        check_inputs(facts, graphs)
        layers = () if facts.stateful else facts.layers
        shapes = [(layer.n_kv_heads, layer.head_dim) for layer in layers]
        self._kv = KvBuffer(shapes, self._steps.capacity, facts.kv_dtype)
        self.ids: list[int] = []
        self.reused_tokens = 0
        self.n_steps = 0

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self._kv.capacity

    def rewind(self, n_tokens: int) -> None:
        """Forgets the tokens after the first n_tokens."""
        self._kv.rewind(n_tokens)
        del self.ids[n_tokens:]

    def append(self, ids: Sequence[int]) -> F32Array:
        """Processes ids; logits [n_tokens, n_vocab] of each.

        InvalidArgumentError: an id that there is not. ContextOverflowError: more than fit; nothing
        was processed then. NumericError: logits that are not finite.
        """
        self._check(ids)
        rows: list[F32Array] = []
        n_done = 0
        while n_done < len(ids):
            rows.append(self._step(ids[n_done:]))
            n_done += len(rows[-1])
        return np.concatenate(rows)

    def reuse(self, ids: Sequence[int]) -> list[int]:
        """Keeps of what was processed the longest beginning of ids, at most all but the last of
        them; returns the others."""
        n_equal = 0
        for ours, theirs in zip(self.ids, ids[:-1], strict=False):
            if ours != theirs:
                break
            n_equal += 1
        self.rewind(n_equal)
        self.reused_tokens = n_equal
        return list(ids[n_equal:])

    def _check(self, ids: Sequence[int]) -> None:
        n_tokens, n_vocab = len(self.ids) + len(ids), self._facts.n_vocab
        if not ids:
            raise InvalidArgumentError("no ids to process", code="invalid_argument")
        bad = next((i for i in ids if not 0 <= i < n_vocab), None)
        if bad is not None:
            raise InvalidArgumentError(
                f"id {bad} is not in the vocabulary of {n_vocab}", code="invalid_argument"
            )
        if n_tokens > self.capacity:
            raise ContextOverflowError(
                f"{n_tokens} tokens, but the graphs were made for {self.capacity}; convert with a "
                "larger --context",
                code="context_overflow",
            )

    def _step(self, pending: Sequence[int]) -> F32Array:
        """Logits of as many of the pending tokens as one step takes."""
        n_before = self._kv.n_tokens
        parts = self._steps.choose(len(pending), n_before)
        ids = pending[: parts[0].n_rows]
        outputs: dict[str, Tensor] = {}
        for graph in parts:
            feeds = {name: self._feed(name, graph, ids, outputs) for name in graph.inputs}
            outputs |= self._runners[graph.name].run(feeds)
        logits = np.asarray(outputs["logits"][: len(ids)], dtype=np.float32)
        if not np.isfinite(logits).all():
            raise NumericError(
                f"graph '{parts[-1].name}' gave a logit that is not finite at token {n_before}",
                code="numeric",
            )
        self._kv.keep(outputs, len(ids))
        self.ids.extend(ids)
        self.n_steps += 1
        return logits

    def _feed(
        self, name: str, graph: GraphFacts, ids: Sequence[int], outputs: Mapping[str, Tensor]
    ) -> Tensor:
        kind, _, layer = name.partition(".")
        if kind in ("past_k", "past_v"):
            return self._kv.past(int(layer), kind[-1], graph.n_past)
        if kind == "x":
            return outputs["hidden"]
        return made_input(name, self._facts, graph, ids, self._kv.n_tokens)


def most_likely(logits: F32Array, step: int) -> int:
    """The id of the largest logit, the lower of equal ones. step: of the token to come."""
    del step
    return int(logits.argmax())


def generate(
    session: GraphSession,
    prompt: Sequence[int],
    max_tokens: int,
    *,
    choose: Choose = most_likely,
    stop_ids: Sequence[int] = (),
    speculate: bool = False,
    n_guesses: int = 3,
) -> Iterator[int]:
    """Tokens after a prompt, of which what is known is not computed again.

    speculate: verify up to n_guesses tokens that repeat the text so far in the step that computes
    the one before them; the tokens are the same. ContextOverflowError: prompt and tokens do
    not fit; nothing was processed then.
    """
    _check_room(session, prompt, max_tokens)
    token = choose(session.append(session.reuse(prompt))[-1], len(prompt))
    n_left = max_tokens
    while True:
        yield token
        n_left -= 1
        if token in stop_ids or n_left == 0:
            return
        n_before = len(session.ids) + 1
        drafts = guess([*session.ids, token], min(n_guesses, n_left - 1)) if speculate else []
        rows = session.append([token, *drafts])
        for index, draft in enumerate(drafts):
            token = choose(rows[index], n_before + index)
            if token != draft:
                session.rewind(n_before + index)
                break
            yield token
            n_left -= 1
            if token in stop_ids or n_left == 0:
                return
        else:
            token = choose(rows[-1], n_before + len(drafts))


def _check_room(session: GraphSession, prompt: Sequence[int], max_tokens: int) -> None:
    if max_tokens < 1:
        raise InvalidArgumentError(
            f"max_tokens must be at least 1, but is {max_tokens}", code="invalid_argument"
        )
    n_needed = len(prompt) + max_tokens - 1  # the last token is not processed
    if n_needed > session.capacity:
        raise ContextOverflowError(
            f"a prompt of {len(prompt)} tokens and {max_tokens} more, but the graphs were made for "
            f"{session.capacity}; ask for fewer, or convert with a larger --context",
            code="context_overflow",
        )
