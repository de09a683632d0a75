"""Last-word cloze: a passage without its last word, which the model says, and how sure it was.

    items = cloze_items(read_corpus(path, kind="books"), n_items=2000)
    answers = answer_cloze(model, items)

A question with one right answer that needs no instructions, so that models of any size can be
asked (Paperno et al. 2016, LAMBADA). The word stands in the passage before, too, as it mostly does
there: it can be known. Passages come from the texts given: take held-out ones.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..confidence import answer_signals, mean_probability, spilled_energies
from ..errors import InvalidArgumentError
from ..model import Model
from ..results import Generation

CONTEXT_CHARS = 600  # of a passage, at most; begins at a word
_MIN_CONTEXT_CHARS = 200
_MAX_TOKENS = 12  # for one word and the sign that it is over
_AT_ONCE = 16
# The end of a sentence whose last word has three letters or more.
_LAST_WORD = re.compile(r"(?<=[a-z,;] )([a-z]{3,})(?=[.!?])")
_WORD = re.compile(r"\s*([^\W\d_]+(?:['\u2019-][^\W\d_]+)*)")


@dataclass(frozen=True)
class ClozeItem:
    """A passage, and the word that it goes on with."""

    prompt: str
    word: str


@dataclass(frozen=True)
class ClozeAnswer:
    """What a model said, and its signals: of the word's first token, and of the word's tokens.

    `probability`: of the whole word; `mean_probability`: the geometric mean over its tokens;
    `entropy`: their mean, `margin`: their lowest; `spilled_energy` and `most_spilled`: mean and
    highest. `n_tokens`: read and generated for the word.
    """

    word: str
    is_right: bool
    first_probability: float
    first_margin: float
    first_entropy: float
    probability: float
    mean_probability: float
    margin: float
    entropy: float
    spilled_energy: float
    most_spilled: float
    n_tokens: int


def cloze_items(texts: Iterable[str], n_items: int, *, seed: int = 0) -> list[ClozeItem]:
    """Up to `n_items` of them, drawn without replacement from all such sentences of the texts, in
    an order that `seed` decides. InvalidArgumentError: the texts have none."""
    found = [item for text in texts for item in _items_of(" ".join(text.split()))]
    if not found:
        message = (
            "the texts hold no sentence that ends in a word of the 200 characters or more before it"
        )
        raise InvalidArgumentError(message, code="invalid_argument")
    random.Random(seed).shuffle(found)
    return found[:n_items]


def _items_of(text: str) -> Iterable[ClozeItem]:
    for match in _LAST_WORD.finditer(text):
        if match.start() < _MIN_CONTEXT_CHARS:
            continue
        prompt = text[max(0, match.start() - CONTEXT_CHARS) : match.start()].rstrip()
        if match.start() > CONTEXT_CHARS:
            prompt = prompt.partition(" ")[2]
        if re.search(rf"\b{match[1]}\b", prompt):
            yield ClozeItem(prompt, match[1])


def answer_cloze(model: Model, items: Sequence[ClozeItem]) -> list[ClozeAnswer]:
    """The greedy answer of the model to each. An answer that says no word is wrong."""
    prompts = [item.prompt for item in items]
    answers = model.generate_batch(
        prompts, at_once=_AT_ONCE, max_tokens=_MAX_TOKENS, signals=True, stop_ids=()
    )
    return [_judged(model, item, answer) for item, answer in zip(items, answers, strict=True)]


def _judged(model: Model, item: ClozeItem, answer: Generation) -> ClozeAnswer:
    match = _WORD.match(answer.text)
    word = match[1] if match else ""
    n_word = _n_tokens_for(model, answer, match.end() if match else len(answer.text))
    logprobs, signals = answer.logprobs[:n_word], answer.signals[:n_word]
    over = answer_signals(signals)
    # With one token more: how much energy the last one has spilled shows after it.
    spilled = spilled_energies(answer.signals[: n_word + 1]) or [0.0]
    return ClozeAnswer(
        word=word,
        is_right=word == item.word,
        first_probability=mean_probability(logprobs[:1]),
        first_margin=signals[0].margin,
        first_entropy=signals[0].entropy,
        probability=mean_probability(logprobs) ** n_word,
        mean_probability=mean_probability(logprobs),
        margin=over.margin,
        entropy=over.entropy,
        spilled_energy=sum(spilled) / len(spilled),
        most_spilled=max(spilled),
        n_tokens=answer.stats.prompt_tokens + n_word,
    )


def _n_tokens_for(model: Model, answer: Generation, n_chars: int) -> int:
    """How many tokens it takes to say the first `n_chars` of the answer."""
    counts = range(1, len(answer.token_ids))
    said = (len(model.detokenize(answer.token_ids[:n])) for n in counts)
    return next((n for n, length in zip(counts, said, strict=True) if length >= n_chars), 1)


def auroc(scores: Sequence[float], is_right: Sequence[bool]) -> float:
    """Probability that a right answer scores higher than a wrong one, ties counted half (Mann and
    Whitney 1947). InvalidArgumentError: not both kinds are there."""
    import numpy as np

    right = np.asarray(is_right, bool)
    n_right, n_wrong = int(right.sum()), int((~right).sum())
    if not n_right or not n_wrong:
        message = f"{n_right} right and {n_wrong} wrong answers have no order between them"
        raise InvalidArgumentError(message, code="invalid_argument")
    _, ranks, counts = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    mean_ranks = (np.cumsum(counts) - (counts - 1) / 2)[ranks]
    return float((mean_ranks[right].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))
