"""A Unigram model as tables of the blob: which tokens text may become, and their scores."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from pathlib import Path

import numpy as np

from edgellm.errors import FormatError

from .components import Json, refuse
from .tries import MAX_DEPTH, pack_trie

MAX_SCORE = 1e15
_UNKNOWN_PENALTY = 10.0


def check_unigram(path: Path, model: Json) -> None:
    vocab = model["vocab"]
    if model.get("unk_id") is None:
        raise refuse(path, "model 'Unigram' without 'unk_id'")
    for id_, (text, score) in enumerate(vocab):
        if not math.isfinite(score) or abs(score) > MAX_SCORE:
            raise FormatError(
                f"{path}: the score {score} of token {id_} ({text!r}) is not a usable number",
                code="tokenizer_invalid",
            )
        if not text or len(text.encode()) > MAX_DEPTH:
            raise refuse(path, f"token {id_} of {len(text.encode())} bytes")


def closed_texts(model: Json, specials: Collection[str]) -> set[str]:
    """Tokens that text never becomes, as in SentencePiece: unknown, special, and byte tokens."""
    closed = {model["vocab"][model["unk_id"]][0], *specials}
    if model.get("byte_fallback"):
        closed.update(f"<0x{byte:02X}>" for byte in range(256))
    return closed


def pack_unigram(model: Json, n_vocab: int, open_ids: dict[str, int]) -> bytes:
    """Scores of all ids, and the trie of those in `open_ids`."""
    own = [score for _, score in model["vocab"]]
    wide = np.zeros(n_vocab, dtype="<f8")
    wide[: len(own)] = own
    narrow = wide.astype("<f4")
    exact = bool(np.all(narrow.astype("<f8") == wide))
    scores = (narrow if exact else wide).tobytes()
    # The lowest score is taken over all pieces, closed ones included, as HF does it.
    head = struct.pack("<IId", 4 if exact else 8, 0, min(own) - _UNKNOWN_PENALTY)
    return head + scores + pack_trie({text.encode(): id_ for text, id_ in open_ids.items()})
