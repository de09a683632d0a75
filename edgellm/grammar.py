"""Constraints of texts out of `response_format`: llguidance over this model's tokens.

A format is compiled once for a model; what is compiled here is remembered with the model.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from .constraint import Constraint, Landing, words_of
from .errors import UnsupportedError
from .grammar_compiler import compiled
from .response_format import ResponseFormat

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from . import _native
    from .options import GenerateOptions

_HINT = "structured output needs llguidance; install it with: pip install 'edgellm[grammar]'"
_MAX_REMEMBERED = 64
# What a JSON answer that runs out of tokens is closed with, the first that is allowed.
_CLOSERS = ((b'"',), (b"}", b"]"), (b",",))


def constraint_for(
    model: _native.Model, options: GenerateOptions, stop_ids: frozenset[int]
) -> Constraint | None:
    """For one text with these options; None if it is free. UnsupportedError: no llguidance, no
    tokenizer, or a format that cannot be enforced; InvalidArgumentError: a wrong one."""
    wanted = options.response_format
    if wanted is None:
        return None
    with _lock:
        grammars = _remembered.get(model)
        if grammars is None:
            grammars = _remembered[model] = Grammars(model)
    return Constraint(
        grammars.matcher(wanted),
        model.n_vocab,
        stop_ids,
        options.max_tokens,
        grammars.landing if wanted.kind == "json_schema" and wanted.finish else None,
    )


class Grammars:
    """Of one model: its tokens as llguidance wants them, and what was compiled."""

    def __init__(self, model: _native.Model) -> None:
        tokenizer = model.tokenizer
        if tokenizer is None:
            message = "response_format needs a tokenizer, and this file has none"
            raise UnsupportedError(message, code="tokenizer_unsupported")
        self._lock = Lock()
        self._compiled: OrderedDict[ResponseFormat, LLMatcher] = OrderedDict()
        self._tokens = _ByteTokenizer(tokenizer, model.n_vocab)
        self._tokenizer = _ll_tokenizer(self._tokens)
        self.landing = Landing(
            tuple(words_of(self._tokens.ids_of(texts), model.n_vocab) for texts in _CLOSERS)
        )

    def matcher(self, wanted: ResponseFormat) -> LLMatcher:
        """At the beginning of a text, the caller's own."""
        with self._lock:
            known = self._compiled.get(wanted)
            if known is None:
                known = compiled(self._tokenizer, wanted)
                while len(self._compiled) >= _MAX_REMEMBERED:
                    self._compiled.popitem(last=False)
                self._compiled[wanted] = known
            self._compiled.move_to_end(wanted)
            return known.deep_copy()


_lock = Lock()
_remembered: WeakKeyDictionary[_native.Model, Grammars] = WeakKeyDictionary()


class _ByteTokenizer:
    """What llguidance asks of a tokenizer. One id more than the model has stands for the end of a
    text, so that no token of the model's is mistaken for it."""

    def __init__(self, tokenizer: _native.Tokenizer, n_vocab: int) -> None:
        n_known = min(n_vocab, tokenizer.n_vocab)
        self._tokenizer = tokenizer
        self.special_token_ids = [i for i in range(n_known) if tokenizer.is_special(i)]
        specials = frozenset(self.special_token_ids)
        self.tokens = [
            tokenizer.token_text(i).encode() if i in specials else tokenizer.token_bytes(i)
            for i in range(n_known)
        ]
        self.tokens += [b""] * (n_vocab - n_known) + [b"<|end of the text|>"]
        self.eos_token_id = n_vocab
        self.bos_token_id = None
        self.special_token_ids.append(n_vocab)

    def ids_of(self, texts: tuple[bytes, ...]) -> set[int]:
        """Of the tokens that are one of `texts`."""
        return {token_id for token_id, text in enumerate(self.tokens) if text in texts}

    def __call__(self, text: str) -> list[int]:
        """The usual tokens of `text` inside a text: behind something that it does not join."""
        if isinstance(text, bytes):  # llguidance asks whether it may give bytes
            raise TypeError("text must be a str")
        for joint in ("a", "a\n"):
            before = self._tokenizer.encode(joint, bos=False)
            ids = self._tokenizer.encode(joint + text, bos=False)
            if ids[: len(before)] == before:
                rest = ids[len(before) :]
                if b"".join(self.tokens[i] for i in rest) == text.encode():
                    return rest
        return self._tokenizer.encode(text, bos=False)


def _ll_tokenizer(tokens: _ByteTokenizer) -> LLTokenizer:
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError:
        raise UnsupportedError(_HINT, code="feature_unsupported") from None
    return LLTokenizer(TokenizerWrapper(tokens), n_vocab=len(tokens.tokens))
