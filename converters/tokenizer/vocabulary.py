"""Vocabulary, merges and added tokens of a model, as tables of the blob.

What depends on HF's exact behaviour (which words are one token, what added tokens normalize to) is
asked of the loaded HF tokenizer, not reimplemented.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgellm.errors import FormatError

from .blob import (
    NO_ID,
    AddedEntry,
    ModelKind,
    Section,
    TokenFlag,
    pack_merge_table,
    pack_vocab_table,
)
from .components import Json, refuse
from .unigram import check_unigram, closed_texts, pack_unigram

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MAX_ADDED_BYTES = 512


def byte_characters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's map)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    shown = {b: chr(b) for b in printable}
    shown.update({b: chr(0x100 + i) for i, b in enumerate(others)})
    return [shown[b] for b in range(256)]


_BYTE_OF = {character: byte for byte, character in enumerate(byte_characters())}


def raw_bytes(text: str, byte_level: bool) -> tuple[bytes, bool]:
    """What a token stands for, and whether it is taken literally in a byte-level vocabulary."""
    if not byte_level:
        return text.encode(), False
    values = [_BYTE_OF.get(character) for character in text]
    if None in values:
        return text.encode(), True
    return bytes(value for value in values if value is not None), False


@dataclass(frozen=True)
class Vocabulary:
    sections: dict[Section, bytes]
    n_vocab: int
    raw_added: tuple[AddedEntry, ...]
    normalized_added: tuple[AddedEntry, ...]
    specials: dict[str, int]
    merges: dict[tuple[int, int], tuple[int, int]]


def read_merges(path: Path, model: Json) -> dict[tuple[int, int], tuple[int, int]]:
    """(left id, right id) -> (rank, merged id); of equal pairs the last one counts, as in HF."""
    vocab: Mapping[str, int] = model["vocab"]
    merges: dict[tuple[int, int], tuple[int, int]] = {}
    for rank, item in enumerate(model["merges"]):
        parts = item.split(" ") if isinstance(item, str) else item
        if len(parts) != 2 or any(p not in vocab for p in (*parts, "".join(parts))):
            raise FormatError(
                f"{path}: merge {rank} ({item!r}) is not in the vocabulary",
                code="tokenizer_invalid",
            )
        left, right = parts
        merges[vocab[left], vocab[right]] = (rank, vocab[left + right])
    return merges


def is_unigram(model: Json) -> bool:
    return model.get("type") == "Unigram"


def vocab_of(model: Json) -> dict[str, int]:
    """Text -> id; of equal pieces of a Unigram list the last one counts, as in HF."""
    if is_unigram(model):
        return {text: id_ for id_, (text, _) in enumerate(model["vocab"])}
    return dict(model["vocab"])


def unk_id_of(model: Json) -> int | None:
    if is_unigram(model):
        found = model.get("unk_id")
    else:
        unk = model.get("unk_token")
        found = model["vocab"].get(unk) if unk else None
    return None if found is None else int(found)


def check_model(path: Path, model: Json) -> None:
    if is_unigram(model):
        check_unigram(path, model)
        return
    if model.get("type") != "BPE":
        raise refuse(path, f"model {model.get('type')!r}")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise refuse(path, f"BPE option {key!r}")
    ids = list(model["vocab"].values())
    if len(set(ids)) != len(ids) or min(ids, default=-1) < 0 or max(ids) >= 1 << 24:
        raise FormatError(
            f"{path}: vocabulary ids are missing, repeated or out of range",
            code="tokenizer_invalid",
        )


def read_added(
    path: Path, oracle: Tokenizer
) -> tuple[list[AddedEntry], list[AddedEntry], dict[int, str]]:
    """Added tokens matched in raw and in normalized text, and what each decodes to."""
    raw: list[AddedEntry] = []
    normalized: list[AddedEntry] = []
    decoded: dict[int, str] = {}
    normalizer: Any = oracle.normalizer
    for id_, token in oracle.get_added_tokens_decoder().items():
        if token.single_word:
            raise refuse(path, f"added token {token.content!r} with 'single_word'")
        text = token.content
        if token.normalized and normalizer is not None:
            text = normalizer.normalize_str(text)
        if not text or len(text.encode()) > _MAX_ADDED_BYTES:
            raise refuse(path, f"added token {token.content!r} of this length")
        decoded[id_] = text
        entry = AddedEntry(text, id_, token.special, token.lstrip, token.rstrip)
        entries = normalized if token.normalized else raw
        if any(other.text == text for other in entries):
            raise refuse(path, f"added token {token.content!r}, normalized like another one,")
        entries.append(entry)
    return raw, normalized, decoded


def _texts_by_id(model: Json) -> dict[int, str]:
    if is_unigram(model):
        return {id_: str(text) for id_, (text, _) in enumerate(model["vocab"])}
    return {id_: text for text, id_ in model["vocab"].items()}


@dataclass
class _Tables:
    """What becomes of the tokens, by id, and which of them pieces of text are looked up among."""

    texts: list[bytes]
    flags: NDArray[np.uint8]
    keys: dict[str, int]


def build_vocabulary(path: Path, model: Json, oracle: Tokenizer, byte_level: bool) -> Vocabulary:
    raw, normalized, decoded = read_added(path, oracle)
    specials = {t.content: i for i, t in oracle.get_added_tokens_decoder().items() if t.special}
    if is_unigram(model):
        if byte_level:
            raise refuse(path, "model 'Unigram' with a byte-level pre-tokenizer")
        closed = closed_texts(model, specials)
    else:
        closed = set()
    tables = _read_tokens(path, model, oracle, decoded, (set(specials), closed), byte_level)
    merges = {} if is_unigram(model) else read_merges(path, model)
    sections = _pack(model, tables, merges, byte_level)
    n_vocab = len(tables.texts)
    return Vocabulary(sections, n_vocab, tuple(raw), tuple(normalized), specials, merges)


def _read_tokens(
    path: Path,
    model: Json,
    oracle: Tokenizer,
    decoded: Mapping[int, str],
    kinds: tuple[set[str], set[str]],
    byte_level: bool,
) -> _Tables:
    """`kinds`: the texts of special tokens, and those that text never becomes."""
    specials, closed = kinds
    model_texts = _texts_by_id(model)
    ids = vocab_of(model)
    n_vocab = max([*model_texts, *decoded]) + 1
    tables = _Tables([], np.zeros(n_vocab, dtype=np.uint8), {})
    for id_ in range(n_vocab):
        model_text = model_texts.get(id_)
        text = decoded.get(id_, model_text)
        if text is None:
            tables.texts.append(b"")
            tables.flags[id_] = TokenFlag.ABSENT
            continue
        stands_for, literal = raw_bytes(text, byte_level)
        tables.texts.append(stands_for)
        flag = TokenFlag.LITERAL if literal else TokenFlag(0)
        if text in specials:
            flag |= TokenFlag.SPECIAL
        if not byte_level and _BYTE_TOKEN.fullmatch(text):
            flag |= TokenFlag.BYTE
        if model_text is not None and model_text not in closed:
            whole = not is_unigram(model) and _is_whole(oracle, model_text, id_)
            reachable = whole or len(model_text) == 1 or is_unigram(model)
            if text != model_text and reachable:
                raise refuse(path, f"added token {model_text!r}, normalized away from its text,")
            if text == model_text and not literal and ids[text] == id_:
                tables.keys[text] = id_
                flag |= TokenFlag.WHOLE if whole else TokenFlag(0)
        tables.flags[id_] = flag
    return tables


def _is_whole(oracle: Tokenizer, text: str, id_: int) -> bool:
    return [token.id for token in oracle.model.tokenize(text)] == [id_]


def _pack(
    model: Json,
    tables: _Tables,
    merges: Mapping[tuple[int, int], tuple[int, int]],
    byte_level: bool,
) -> dict[Section, bytes]:
    n_vocab = len(tables.texts)
    vocab = vocab_of(model)
    ids = list(tables.keys.values())
    vocab_table, vocab_probes = pack_vocab_table([tables.texts[id_] for id_ in ids], ids)
    shown = byte_characters() if byte_level else [f"<0x{b:02X}>" for b in range(256)]
    byte_ids = [vocab.get(text, NO_ID) for text in shown]
    offsets = np.cumsum([0, *map(len, tables.texts)]).astype("<u4")
    if is_unigram(model):
        kind, merge_probes, fuses = ModelKind.UNIGRAM, 0, True
        own = {Section.UNIGRAM: pack_unigram(model, n_vocab, tables.keys)}
    else:
        kind, fuses = ModelKind.BPE, bool(model.get("fuse_unk"))
        merge_table, merge_probes = pack_merge_table(merges)
        own = {Section.MERGE_TABLE: merge_table}
    options = fuses | bool(model.get("byte_fallback")) << 1
    unk = unk_id_of(model)
    unk = NO_ID if unk is None else unk
    head = (kind, byte_level, n_vocab, unk, options, len(merges), merge_probes, vocab_probes)
    return {
        **own,
        Section.MODEL: struct.pack("<8I", *head),
        Section.TOKEN_OFFSETS: offsets.tobytes(),
        Section.TOKEN_BYTES: b"".join(tables.texts),
        Section.TOKEN_FLAGS: tables.flags.tobytes(),
        Section.VOCAB_TABLE: vocab_table,
        Section.BYTE_IDS: struct.pack("<256I", *byte_ids),
    }
