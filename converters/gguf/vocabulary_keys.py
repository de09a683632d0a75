"""A tokenizer's description as the keys tokenizer.ggml.*: the way back from tokenizer.py.

Byte-level BPE whose pattern llama.cpp knows by a name, and BPE over characters as SentencePiece
makes it (Llama 2); what llama.cpp could not cut and merge alike is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import UnsupportedError

from ..tokenizer import Description
from ..tokenizer.components import read_affixes
from .pre_tokenizers import PRE_TOKENIZERS, PreTokenizer, gpt2_pattern
from .tokenizer import TokenType

Json = dict[str, Any]

_MARK = "\u2581"
_PREFERRED = ("gpt-2", "llama-bpe", "qwen2", "smollm")  # of names that mean the same


def vocabulary_keys(source: Description, n_vocab: int) -> Json:
    """Without "tokenizer.ggml." in front. n_vocab: of the model; tokens beyond the tokenizer's are
    filled up. UnsupportedError: what cannot be said in these keys."""
    path, data = source.path, source.data
    model = data["model"]
    if model.get("type") != "BPE":
        raise _refused(path, f"a model {model.get('type')!r}")
    added = {token["id"]: token for token in data.get("added_tokens") or ()}
    texts: dict[int, str] = {id_: text for text, id_ in model["vocab"].items()}
    texts |= {id_: token["content"] for id_, token in added.items()}
    own = _byte_level(path, data) if _is_byte_level(data) else _sentencepiece(path, data)
    unknown = model["vocab"].get(model.get("unk_token"), -1)
    keys = {
        "tokens": [texts.get(id_, f"[PAD{id_}]") for id_ in range(n_vocab)],
        "token_type": [_type(id_, texts, added, unknown, model) for id_ in range(n_vocab)],
        **own,
    }
    if keys["model"] == "llama":
        keys["scores"] = _scores(keys["tokens"], _merges(model))
        if unknown >= 0:
            keys["unknown_token_id"] = unknown
    prefix, suffix = read_affixes(path, data)
    if len(prefix) > 1 or len(suffix) > 1:
        raise _refused(path, "several tokens around every text")
    keys |= {"add_bos_token": bool(prefix), "add_eos_token": bool(suffix)}
    return keys


def _is_byte_level(data: Json) -> bool:
    return any(leaf["type"] == "ByteLevel" for leaf in _leaves(data.get("pre_tokenizer")))


def _leaves(component: Json | None) -> list[Json]:
    if component is None:
        return []
    if component["type"] == "Sequence":
        parts = component.get("pretokenizers") or component.get("normalizers") or ()
        return [leaf for part in parts for leaf in _leaves(part)]
    return [component]


def _byte_level(path: Path, data: Json) -> Json:
    patterns: list[str] = []
    for leaf in _leaves(data["pre_tokenizer"]):
        if leaf["type"] == "Split" and "Regex" in leaf["pattern"]:
            patterns.append(leaf["pattern"]["Regex"])
        elif leaf["type"] == "Digits" and leaf.get("individual_digits"):
            patterns.append(r"\p{N}")
        elif leaf["type"] == "ByteLevel":
            patterns += [gpt2_pattern()] if leaf.get("use_regex", True) else []
            if leaf.get("add_prefix_space", True):
                raise _refused(path, "a space in front of every text")
        else:
            raise _refused(path, f"the pre-tokenizer {leaf['type']!r}")
    forms = [leaf["type"] for leaf in _leaves(data.get("normalizer"))]
    ignore_merges = bool(data["model"].get("ignore_merges"))
    wanted = [
        PreTokenizer(tuple(patterns), form, ignore_merges, add_bos)
        for form in ([*forms, None] if len(forms) < 2 else [])
        for add_bos in (False, True)
    ]
    names = [name for name, kind in PRE_TOKENIZERS.items() if kind in wanted]
    if not names or (forms and not any(PRE_TOKENIZERS[name].normalizer for name in names)):
        raise _refused(path, "its way to cut texts, for which llama.cpp has no name,")
    merges = [" ".join(pair) for pair in _merges(data["model"])]
    name = next((name for name in _PREFERRED if name in names), names[0])
    return {"model": "gpt2", "pre": name, "merges": merges}


def _sentencepiece(path: Path, data: Json) -> Json:
    if data.get("pre_tokenizer") is not None or not data["model"].get("byte_fallback"):
        raise _refused(path, "a BPE over characters other than Llama 2's")
    steps = [
        (leaf["type"], leaf.get("prepend") or leaf.get("content"))
        for leaf in _leaves(data.get("normalizer"))
    ]
    if steps not in ([("Prepend", _MARK), ("Replace", _MARK)], [("Replace", _MARK)]):
        raise _refused(path, "its normalizer")
    return {"model": "llama", "pre": "default", "add_space_prefix": len(steps) == 2}


def _merges(model: Json) -> list[list[str]]:
    return [item.split(" ") if isinstance(item, str) else item for item in model["merges"]]


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """llama.cpp merges what has the highest score; here that is what comes first in the list."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [float(-ranks.get(text, len(merges))) for text in tokens]


def _type(
    id_: int, texts: Mapping[int, str], added: Mapping[int, Json], unknown: int, model: Json
) -> int:
    if id_ not in texts:
        return int(TokenType.UNUSED)
    if id_ == unknown:
        return int(TokenType.UNKNOWN)
    if id_ in added:
        return int(TokenType.CONTROL if added[id_].get("special") else TokenType.USER_DEFINED)
    is_byte = model.get("byte_fallback") and len(texts[id_]) == 6 and texts[id_].startswith("<0x")
    return int(TokenType.BYTE if is_byte else TokenType.NORMAL)


def _refused(path: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{path}: {what} cannot be written to GGUF", code="tokenizer_unsupported"
    )
