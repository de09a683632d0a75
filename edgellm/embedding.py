"""Embeddings: one vector for each text, pooled from the hidden states of its tokens.

A hidden state is the output of the final norm, what the head would read; the head does not run.
Sums are made token by token in float64, and lengths by math.fsum, so a vector has the same bits on
every machine, however the text was cut into steps, alone or in a batch. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from .batch import run_lanes
from .errors import (
    ContextOverflowError,
    FormatError,
    InvalidArgumentError,
    UnsupportedError,
)
from .stream import checked_ids
from .strict_json import parse_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from . import _native

Pooling = Literal["mean", "last", "cls"]
Prompt = tuple[str, Sequence[int]]  # name for messages, ids
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MAX_BLOB_BYTES = 8192
_MAX_NOTE = 500


@dataclass(frozen=True)
class EmbeddingDefaults:
    """What the author of a model says of its embeddings.

    `pooling` None: nobody said. `max_tokens`: texts were no longer in training; None: the context.
    `left_out`: what the author's own pipeline does and edgellm does not; then nothing is embedded
    unless the caller names a pooling.
    """

    pooling: Pooling | None = None
    normalize: bool = True
    max_tokens: int | None = None
    left_out: str | None = None


def parse_defaults(blob: bytes | None, path: Path) -> EmbeddingDefaults:
    """The defaults in the file at `path`, of which `blob` comes; None: there are none in it."""
    if blob is None:
        return EmbeddingDefaults()
    where = f"{path}: embedding"
    if len(blob) > MAX_BLOB_BYTES:
        raise FormatError(f"{where} has {len(blob)} bytes", code="json_type")
    values = parse_json(blob, where)
    if not isinstance(values, dict):
        raise FormatError(f"{where} is no object", code="json_type")
    unknown = sorted(set(values) - {"pooling", "normalize", "max_tokens", "left_out"})
    if unknown:
        raise FormatError(f"{where}: unknown key '{unknown[0][:80]}'", code="json_unknown_key")
    pooling, normalize = values.get("pooling"), values.get("normalize")
    max_tokens, left_out = values.get("max_tokens"), values.get("left_out")
    if (
        (pooling is None or pooling in POOLINGS)
        and isinstance(normalize, bool)
        and (max_tokens is None or (type(max_tokens) is int and 1 <= max_tokens < 2**31))
        and (left_out is None or (isinstance(left_out, str) and 0 < len(left_out) <= _MAX_NOTE))
    ):
        return EmbeddingDefaults(pooling, normalize, max_tokens, left_out)
    raise FormatError(
        f"{where} must hold a pooling of {', '.join(POOLINGS)}, normalize and perhaps max_tokens "
        "and left_out; convert the model again",
        code="json_type",
    )


@dataclass(frozen=True)
class EmbedOptions:
    """How texts become vectors: the caller's choice, and the file's where that is None.

    `truncate`: a text that is too long loses its end, special tokens kept, instead of being
    refused.
    """

    pooling: Pooling
    normalize: bool
    truncate: bool
    max_tokens: int

    @classmethod
    def chosen(
        cls,
        defaults: EmbeddingDefaults,
        n_ctx: int,
        *,
        pooling: Pooling | None,
        normalize: bool | None,
        truncate: bool,
    ) -> EmbedOptions:
        """Without a word of file or caller: "last", which alone has seen the whole text."""
        if pooling is not None and pooling not in POOLINGS:
            message = f"pooling must be one of {', '.join(POOLINGS)}, but is {pooling!r}"
            raise InvalidArgumentError(message, code="invalid_argument")
        if pooling is None and defaults.left_out is not None:
            raise UnsupportedError(
                f"the author's embeddings of this model take what edgellm does not do: "
                f"{defaults.left_out}; name a pooling to have the plain hidden states pooled",
                code="feature_unsupported",
            )
        limit = n_ctx if defaults.max_tokens is None else min(n_ctx, defaults.max_tokens)
        return cls(
            pooling or defaults.pooling or "last",
            defaults.normalize if normalize is None else normalize,
            truncate,
            limit,
        )


def _text_ids(
    tokenizer: _native.Tokenizer, text: str, name: str, options: EmbedOptions
) -> list[int]:
    """Ids of a text with what the tokenizer's post-processor adds in front and behind."""
    own = tokenizer.encode(text, special=False, bos=False)
    if not own:
        message = f"{name} has no tokens; give at least one character"
        raise InvalidArgumentError(message, code="invalid_argument")
    whole = tokenizer.encode(text, special=False, bos=True)
    if len(whole) <= options.max_tokens or not options.truncate:
        return whole
    added = tokenizer.encode("", special=False, bos=True)
    n_own = options.max_tokens - len(added)
    if n_own < 1:
        message = f"{name}: {options.max_tokens} tokens leave no room beside the special ones"
        raise ContextOverflowError(message, code="context_overflow")
    n_front = next(n for n in range(len(added) + 1) if added[:n] + own + added[n:] == whole)
    return added[:n_front] + own[:n_own] + added[n_front:]


def prompts_of(
    texts: str | Sequence[str] | Sequence[int],
    tokenizer: Callable[[], _native.Tokenizer],
    options: EmbedOptions,
) -> list[Prompt]:
    """Of texts, or of the ids of one, which need no tokenizer."""
    if isinstance(texts, str):
        texts = [texts]
    if len(texts) == 0:
        message = "there is nothing to embed; give a text, texts, or token ids"
        raise InvalidArgumentError(message, code="invalid_argument")
    found = [text for text in texts if isinstance(text, str)]
    if not found:
        return [("ids", cast("Sequence[int]", texts))]
    if len(found) < len(texts):
        message = "texts and token ids cannot be mixed; embed() takes texts, or the ids of one"
        raise InvalidArgumentError(message, code="invalid_argument")
    made = tokenizer()
    return [
        (f"text {at}", _text_ids(made, text, f"text {at}", options))
        for at, text in enumerate(found)
    ]


def embed_ids(
    model: _native.Model,
    prompts: Sequence[Prompt],
    options: EmbedOptions,
    adapter: _native.Adapter | None = None,
    priority: int = 0,
) -> npt.NDArray[np.float32]:
    """[len(prompts), d_model]. All prompts are checked before any work."""
    import numpy as np

    texts = [_within(name, ids, model, options) for name, ids in prompts]
    vectors = np.empty((len(texts), model.d_model), np.float32)
    sums: dict[int, npt.NDArray[np.float64]] = {}  # of the texts under way
    n_taken = [0] * len(texts)

    def take(at: int, rows: npt.NDArray[np.float32]) -> None:
        for row in rows:
            if at not in sums or options.pooling == "last":
                sums[at] = row.astype(np.float64)
            elif options.pooling == "mean":
                sums[at] += row
        n_taken[at] += len(rows)
        if n_taken[at] == len(texts[at]):
            total = sums.pop(at)
            pooled = total / len(texts[at]) if options.pooling == "mean" else total
            vectors[at] = _normalized(pooled) if options.normalize else pooled

    def start(at: int) -> _native.Session:
        from . import _native

        session = _native.Session(model, len(texts[at]), adapter, reuse_prefix=False)
        session.set_priority(priority)
        session.append(texts[at])
        return session

    run_lanes(len(texts), start, "hidden", take)
    return vectors


def _within(
    name: str, given: Sequence[int], model: _native.Model, options: EmbedOptions
) -> list[int]:
    ids = checked_ids(given, model.n_vocab, name)
    if not ids:
        message = f"{name} is empty; give at least one token id"
        raise InvalidArgumentError(message, code="invalid_argument")
    limit = options.max_tokens
    if len(ids) > limit and not options.truncate:
        raise ContextOverflowError(
            f"{name} has {len(ids)} tokens, and embeddings of this model take at most {limit}; "
            f"cut {len(ids) - limit} of them, or let truncate do it",
            code="context_overflow",
        )
    return ids[:limit]


def _normalized(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of length 1, in float64; a vector of zeros stays one."""
    length = math.sqrt(math.fsum(value * value for value in vector.tolist()))
    return vector / length if length > 0 else vector
