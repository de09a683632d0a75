"""A tokenizer with fewer tokens: a description (tokenizer.json) in, a smaller one out.

Text all of whose tokens stay is cut into the same tokens, whose new ids are their places among
those that stay. For BPE that needs both halves of every merge that makes a token that stays, for
Unigram nothing. What is always kept: added tokens, the unknown one, and what other text is spelt
with. The description must be one that compiles (compile.py).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgellm.errors import InvalidArgumentError

from .components import Json
from .vocabulary import byte_characters, is_unigram, unk_id_of, vocab_of

_META = "\u2581"
_PROCESSOR_PAIRS = ("sep", "cls")  # of Bert's and Roberta's kind: [text, id]


def kept_tokens(
    data: Json, counts: npt.NDArray[np.int64], n_wanted: int, needed: Iterable[int]
) -> tuple[int, ...]:
    """The ids that stay, ascending, at most n_wanted: those that must, `needed` among them, then by
    `counts` [n_vocab] (of equal ones the lower id), each with what it is merged from, if that still
    fits. InvalidArgumentError where those that must stay are more."""
    model = data["model"]
    halves = _halves(model)
    kept: set[int] = set()
    for token in (*_needed(data), *needed):
        kept |= _closure(token, halves, kept)
    if len(kept) > n_wanted:
        raise InvalidArgumentError(
            f"a vocabulary of {n_wanted} tokens: {len(kept)} must stay (special and added ones, "
            "and those that any text can be spelt with); ask for that many or more",
            code="invalid_argument",
        )
    there = set(vocab_of(model).values())
    for token in np.argsort(-counts, kind="stable").tolist():
        if len(kept) == n_wanted:
            break
        new = _closure(token, halves, kept) if token in there else set()
        if len(kept) + len(new) <= n_wanted:
            kept |= new
    return tuple(sorted(kept))


def trimmed(data: Json, tokens: Sequence[int]) -> Json:
    """The description with `tokens` alone, ascending, whose places are the new ids."""
    ids = {old: new for new, old in enumerate(tokens)}
    result: Json = copy.deepcopy(data)
    model = result["model"]
    if is_unigram(model):
        model["vocab"] = [model["vocab"][old] for old in tokens if old < len(model["vocab"])]
        if model.get("unk_id") is not None:
            model["unk_id"] = ids[model["unk_id"]]
    else:
        by_id = {old: text for text, old in model["vocab"].items()}
        model["vocab"] = {by_id[old]: ids[old] for old in tokens if old in by_id}
        model["merges"] = [item for item in model["merges"] if _stays(item, model["vocab"])]
    for entry in result["added_tokens"]:
        entry["id"] = ids[entry["id"]]
    _renumber_processor(result.get("post_processor"), ids)
    return result


def trimmed_config(values: Mapping[str, object], tokens: Sequence[int]) -> Json:
    """tokenizer_config.json of the same."""
    result = dict(values)
    decoder = result.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        ids = {str(old): str(new) for new, old in enumerate(tokens)}
        result["added_tokens_decoder"] = {ids[k]: v for k, v in decoder.items() if k in ids}
    return result


def _needed(data: Json) -> list[int]:
    model = data["model"]
    vocab = vocab_of(model)
    needed = [int(entry["id"]) for entry in data["added_tokens"]]
    unk = unk_id_of(model)
    needed += [] if unk is None else [unk]
    spelling: Iterable[str] = [_META, *(f"<0x{byte:02X}>" for byte in range(256))]
    if '"ByteLevel"' in json.dumps(data.get("pre_tokenizer")):
        spelling = byte_characters()
    elif not model.get("byte_fallback"):
        spelling = [text for text in vocab if len(text) == 1]
    return needed + [vocab[text] for text in spelling if text in vocab]


def _halves(model: Json) -> dict[int, list[tuple[int, int]]]:
    """Merged id -> all the pairs that it is merged from."""
    found: dict[int, list[tuple[int, int]]] = {}
    if is_unigram(model):
        return found
    vocab = model["vocab"]
    for item in model["merges"]:
        left, right = _pair(item)
        found.setdefault(vocab[left + right], []).append((vocab[left], vocab[right]))
    return found


def _closure(token: int, halves: dict[int, list[tuple[int, int]]], kept: set[int]) -> set[int]:
    """`token` and what it is made of, but what is kept already, whose parts are, too."""
    new: set[int] = set()
    waiting = [token]
    while waiting:
        one = waiting.pop()
        if one not in kept and one not in new:
            new.add(one)
            waiting += [half for pair in halves.get(one, ()) for half in pair]
    return new


def _pair(item: str | Sequence[str]) -> tuple[str, str]:
    left, right = item.split(" ") if isinstance(item, str) else item
    return left, right


def _stays(item: str | Sequence[str], vocab: Mapping[str, int]) -> bool:
    left, right = _pair(item)
    return left in vocab and right in vocab and left + right in vocab


def _renumber_processor(value: Json | None, ids: Mapping[int, int]) -> None:
    if not value:
        return
    for inner in value.get("processors", ()):
        _renumber_processor(inner, ids)
    for entry in (value.get("special_tokens") or {}).values():
        entry["ids"] = [ids[old] for old in entry["ids"]]
    for key in _PROCESSOR_PAIRS:
        if isinstance(value.get(key), list):
            text, old = value[key]
            value[key] = [text, ids[old]]
