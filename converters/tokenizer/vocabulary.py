"""Vocabulary, merges and added tokens of a BPE model, as tables of the blob.

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
from tokenizers import Tokenizer

from edgellm.errors import FormatError

from .blob import (
    NO_ID,
    AddedEntry,
    Section,
    TokenFlag,
    pack_merge_table,
    pack_vocab_table,
)
from .components import Json, refuse

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


def check_model(path: Path, model: Json) -> None:
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


def build_vocabulary(path: Path, model: Json, oracle: Tokenizer, byte_level: bool) -> Vocabulary:
    raw, normalized, decoded = read_added(path, oracle)
    specials = {t.content: i for i, t in oracle.get_added_tokens_decoder().items() if t.special}
    model_texts: dict[int, str] = {id_: text for text, id_ in model["vocab"].items()}
    n_vocab = max([*model_texts, *decoded]) + 1
    texts: list[bytes] = []
    flags = np.zeros(n_vocab, dtype=np.uint8)
    keys: list[bytes] = []
    key_ids: list[int] = []
    for id_ in range(n_vocab):
        model_text = model_texts.get(id_)
        text = decoded.get(id_, model_text)
        if text is None:
            texts.append(b"")
            flags[id_] = TokenFlag.ABSENT
            continue
        stands_for, literal = raw_bytes(text, byte_level)
        texts.append(stands_for)
        flag = TokenFlag.LITERAL if literal else TokenFlag(0)
        if text in specials:
            flag |= TokenFlag.SPECIAL
        if not byte_level and _BYTE_TOKEN.fullmatch(text):
            flag |= TokenFlag.BYTE
        if model_text is not None:
            whole = [t.id for t in oracle.model.tokenize(model_text)] == [id_]
            if text != model_text and (whole or len(model_text) == 1):
                raise refuse(path, f"added token {model_text!r}, normalized away from its text,")
            if text == model_text and not literal:
                keys.append(stands_for)
                key_ids.append(id_)
                flag |= TokenFlag.WHOLE if whole else TokenFlag(0)
        flags[id_] = flag
    merges = read_merges(path, model)
    sections = _pack(model, texts, flags.tobytes(), keys, key_ids, merges, byte_level)
    return Vocabulary(sections, n_vocab, tuple(raw), tuple(normalized), specials, merges)


def _pack(
    model: Json,
    texts: list[bytes],
    flags: bytes,
    keys: list[bytes],
    key_ids: list[int],
    merges: Mapping[tuple[int, int], tuple[int, int]],
    byte_level: bool,
) -> dict[Section, bytes]:
    vocab_table, vocab_probes = pack_vocab_table(keys, key_ids)
    merge_table, merge_probes = pack_merge_table(merges)
    unk = model["vocab"].get(model["unk_token"], NO_ID) if model.get("unk_token") else NO_ID
    options = bool(model.get("fuse_unk")) | bool(model.get("byte_fallback")) << 1
    shown = byte_characters() if byte_level else [f"<0x{b:02X}>" for b in range(256)]
    byte_ids = [model["vocab"].get(text, NO_ID) for text in shown]
    offsets = np.cumsum([0, *map(len, texts)]).astype("<u4")
    return {
        Section.MODEL: struct.pack(
            "<8I", 1, byte_level, len(texts), unk, options, len(merges), merge_probes, vocab_probes
        ),
        Section.TOKEN_OFFSETS: offsets.tobytes(),
        Section.TOKEN_BYTES: b"".join(texts),
        Section.TOKEN_FLAGS: flags,
        Section.VOCAB_TABLE: vocab_table,
        Section.MERGE_TABLE: merge_table,
        Section.BYTE_IDS: struct.pack("<256I", *byte_ids),
    }
