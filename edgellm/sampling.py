"""Rules and filters of the sampler beyond temperature, top_k, top_p and min_p, checked before any
work. What each does, and in which order, stands in docs/SAMPLING.md.

Knows no model: ids are compared with a vocabulary, and DRY breakers turned into ids, in
`sampler_params()`, which `stream.py` calls once per generation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from .errors import InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    from . import _native

DRY_BREAKERS = ("\n", ":", '"', "*")
_MAX_COUNT = 2**31 - 1
# Longest breaker in characters and in tokens after its first one, most breakers, and how many
# compiled sets of breakers are remembered.
_BREAKER_CHARS, _BREAKER_TAIL, _MAX_BREAKERS, _MAX_REMEMBERED = 40, 20, 64, 8


class SamplingArguments(TypedDict, total=False):
    """Keyword arguments of `stream()` and `generate()` that become `SamplingRules`."""

    repetition_penalty: float
    penalty_window: int
    presence_penalty: float
    frequency_penalty: float
    typical_p: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_range: int
    dry_breakers: str | Sequence[str]
    xtc_probability: float
    xtc_threshold: float
    logit_bias: Mapping[int, float]
    min_tokens: int
    ignore_eos: bool


@dataclass(frozen=True)
class SamplingRules:
    """The defaults do nothing.

    `repetition_penalty` divides positive logits of tokens in prompt and output and multiplies
    negative ones; `penalty_window` limits it to the last so many tokens (0: all).
    `presence_penalty` and `frequency_penalty` are taken off the logit of every generated token,
    once and per occurrence. `dry_*`: a token that would make a repeat of at least
    `dry_allowed_length` tokens longer loses dry_multiplier * dry_base ** (length - allowed);
    repeats end at `dry_breakers` and are looked for in the last `dry_range` tokens (0: all).
    `logit_bias` maps ids to what is added, `-inf` bans. `min_tokens` bans the model's end-of-text
    ids and `stop_ids` until so many tokens are there; `ignore_eos` bans end-of-text for good.

    Filters (with a temperature above 0): `typical_p` keeps the tokens whose surprise is nearest
    the entropy; with `xtc_probability`, all but the least likely of the tokens that have at least
    a share `xtc_threshold` are dropped.
    """

    repetition_penalty: float = 1.0
    penalty_window: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    typical_p: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_range: int = 0
    dry_breakers: str | Sequence[str] = DRY_BREAKERS
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _number("repetition_penalty", self.repetition_penalty, 0, 100, above=True)
        _count("penalty_window", self.penalty_window)
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)
        _number("typical_p", self.typical_p, 0, 1, above=True)
        _number("dry_multiplier", self.dry_multiplier, 0, 100)
        _number("dry_base", self.dry_base, 1, 10)
        _count("dry_allowed_length", self.dry_allowed_length, least=1)
        _count("dry_range", self.dry_range)
        _number("xtc_probability", self.xtc_probability, 0, 1)
        _number("xtc_threshold", self.xtc_threshold, 0, 0.5, above=True)
        _count("min_tokens", self.min_tokens)
        if not isinstance(self.ignore_eos, bool):
            raise _fail(f"ignore_eos must be True or False, but is {self.ignore_eos!r}")
        object.__setattr__(self, "dry_breakers", _breakers(self.dry_breakers))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))

    def native_arguments(
        self, model: _native.Model, stop_ids: Sequence[int] | frozenset[int]
    ) -> dict[str, Any]:
        """For `_native.SamplerParams`: what is not at its default, with breakers and ends as ids
        of this model."""
        plain = {name: getattr(self, name) for name in _PASSED if getattr(self, name) != _OFF[name]}
        bias = dict(self.logit_bias)
        for token_id in bias:
            if not 0 <= token_id < model.n_vocab:
                message = (
                    f"logit_bias holds id {token_id}, but this model's ids are "
                    f"0..{model.n_vocab - 1}"
                )
                raise InvalidArgumentError(message, code="token_out_of_range")
        if self.ignore_eos:
            bias.update(dict.fromkeys(model.eos_ids, -math.inf))
        if bias:
            plain["logit_bias"] = bias
        if self.min_tokens > 0:
            plain["end_ids"] = sorted({*model.eos_ids, *stop_ids})
        if self.dry_multiplier > 0 and self.dry_breakers:
            plain["dry_breakers"] = _compiled(model, tuple(self.dry_breakers))
        return plain


# Passed on as they are, where they differ from the default.
_PASSED = tuple(
    name
    for name in SamplingArguments.__annotations__
    if name not in ("dry_breakers", "logit_bias", "ignore_eos")
)
_OFF = {name: getattr(SamplingRules, name) for name in _PASSED}


def compile_breakers(tokenizer: _native.Tokenizer, breakers: Sequence[str]) -> list[list[int]]:
    """Token sequences that contain a breaker: single tokens that hold it, and for tokens that end
    with its beginning, that token and the usual tokens of the rest."""
    # A token on its own may lose the space it begins with or gain one, and one that holds a part
    # of a character shows only when another follows: so everything stands after a plain letter.
    letter = tokenizer.encode("a", bos=False)[-1]
    spelled = {
        text: _spelling(tokenizer, letter, text)
        for breaker in breakers
        for text in (breaker[n:] for n in range(len(breaker)))
    }
    found = {tuple(spelled[breaker]) for breaker in breakers}
    heads = {breaker[0] for breaker in breakers}
    for token_id, word in enumerate(_words(tokenizer, letter)):
        if heads.isdisjoint(word):
            continue
        for breaker in breakers:
            if breaker in word:
                found.add((token_id,))
                continue
            for n_head in range(1, min(len(breaker), len(word) + 1)):
                if word.endswith(breaker[:n_head]):
                    found.add((token_id, *spelled[breaker[n_head:]]))
    return [list(sequence) for sequence in sorted(found) if sequence]


def _spelling(tokenizer: _native.Tokenizer, letter: int, text: str) -> list[int]:
    """The usual tokens of `text` inside a text, the first of them if there are very many."""
    alone = tokenizer.encode(text, bos=False)
    inside = tokenizer.encode("a" + text, bos=False)
    after = inside[inside.index(letter) + 1 :] if letter in inside[:2] else []
    for ids in (alone, after):
        if tokenizer.decode([letter, *ids]) == tokenizer.decode([letter]) + text:
            return ids[:_BREAKER_TAIL]
    return alone[:_BREAKER_TAIL]


def _words(tokenizer: _native.Tokenizer, letter: int) -> Iterator[str]:
    """The text of every token, special ones included, as it is between two `letter` tokens."""
    from . import _native

    decoder = _native.StreamDecoder(tokenizer, True)
    decoder.push(letter)
    n_letter = len(decoder.push(letter))  # with the space that it may have inside a text
    for token_id in range(tokenizer.n_vocab):
        text = decoder.push(token_id) + decoder.push(letter)
        yield text[: len(text) - n_letter]


_remembered: dict[tuple[str, tuple[str, ...]], list[list[int]]] = {}


def _compiled(model: _native.Model, breakers: tuple[str, ...]) -> list[list[int]]:
    """`compile_breakers`, remembered: it looks at the whole vocabulary."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        message = "DRY breakers need a tokenizer and this file has none; give dry_breakers=()"
        raise UnsupportedError(message, code="tokenizer_unsupported")
    key = (model.root, breakers)
    known = _remembered.get(key)
    if known is None:
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        known = _remembered[key] = compile_breakers(tokenizer, breakers)
    return known


def _fail(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")


def _number(name: str, value: float, least: float, most: float, *, above: bool = False) -> None:
    try:
        is_within = (value > least if above else value >= least) and value <= most
    except TypeError:
        is_within = False
    if not is_within:
        bracket = "(" if above else "["
        raise _fail(f"{name} must be in {bracket}{least}, {most}], but is {value!r}")


def _count(name: str, value: int, *, least: int = 0) -> None:
    if not isinstance(value, int) or not least <= value <= _MAX_COUNT:
        raise _fail(f"{name} must be a whole number in {least}..{_MAX_COUNT}, but is {value!r}")


def _breakers(breakers: str | Sequence[str]) -> tuple[str, ...]:
    each = (breakers,) if isinstance(breakers, str) else tuple(breakers)
    if len(each) > _MAX_BREAKERS:
        raise _fail(f"dry_breakers must be at most {_MAX_BREAKERS} strings, but are {len(each)}")
    for breaker in each:
        if not isinstance(breaker, str) or not 1 <= len(breaker) <= _BREAKER_CHARS:
            raise _fail(
                f"dry_breakers must hold strings of 1..{_BREAKER_CHARS} characters, not {breaker!r}"
            )
    return each


def _biases(biases: Mapping[int, float]) -> Mapping[int, float]:
    if not isinstance(biases, Mapping):
        raise _fail(f"logit_bias must map token ids to numbers, but is {biases!r}")
    for token_id, bias in biases.items():
        is_id = isinstance(token_id, int)
        is_number = isinstance(bias, (int, float)) and not math.isnan(bias) and bias != math.inf
        if not is_id or not is_number:
            raise _fail(
                "logit_bias must map token ids to finite numbers or -inf, but has "
                f"{token_id!r}: {bias!r}"
            )
    return MappingProxyType(dict(biases))
