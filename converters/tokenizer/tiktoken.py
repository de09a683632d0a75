"""tiktoken rank files (`base64 rank` per line, as Llama 3's `tokenizer.model`) -> a description.

Merging by ranks of merged tokens becomes merging by a list of pairs: of every token all its halves
that are tokens, in the order of ranks. Special tokens come from `tokenizer_config.json`.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from .bpe_files import bpe_model, byte_level, split_byte_level
from .components import Json
from .files import affixes, collect_added, description, invalid, read_config
from .vocabulary import byte_characters

# What the families that publish such files cut with; a file itself does not say.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MAX_TOKEN_BYTES = 1024


def is_tiktoken(content: bytes) -> bool:
    """Whether the first line is base64, a space and a number: no protobuf starts so."""
    first = content[: 2 * _MAX_TOKEN_BYTES].split(b"\n", 1)[0].split(b" ")
    if len(first) != 2 or not first[1].strip().isdigit():
        return False
    try:
        return bool(base64.b64decode(first[0], validate=True))
    except binascii.Error:
        return False


def read_ranks(path: Path, content: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            token = base64.b64decode(parts[0], validate=True)
        except binascii.Error:
            token = b""
        if len(parts) != 2 or not parts[1].isdigit() or not 0 < len(token) <= _MAX_TOKEN_BYTES:
            raise invalid(path, f"line {number} is not a base64 token and its rank")
        if token in ranks or len(parts[1]) > 8:
            raise invalid(path, f"line {number} repeats a token or its rank is too large")
        ranks[token] = int(parts[1])
    if len(set(ranks.values())) != len(ranks):
        raise invalid(path, "two tokens have the same rank")
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise invalid(path, f"{missing} of the 256 bytes have no token")
    return ranks


def rank_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    merges: list[tuple[bytes, bytes]] = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        halves = [(token[:i], token[i:]) for i in range(1, len(token))]
        found = [(a, b) for a, b in halves if a in ranks and b in ranks]
        merges += sorted(found, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges


def describe_tiktoken(path: Path, content: bytes) -> Json:
    ranks = read_ranks(path, content)
    shown = byte_characters()
    texts = {token: "".join(shown[byte] for byte in token) for token in ranks}
    vocab = {texts[token]: rank for token, rank in ranks.items()}
    config = read_config(path.parent)
    merges = [[texts[a], texts[b]] for a, b in rank_merges(ranks)]
    added = collect_added(config, vocab)
    return description(
        bpe_model(vocab, merges, ignore_merges=True),
        added,
        pre_tokenizer=split_byte_level(LLAMA3_PATTERN, config.flag("add_prefix_space", False)),
        # The models of this family are trained with BOS in front of every text.
        post_processor=affixes(config, vocab, added, add_bos=True),
        decoder=byte_level(True, True),
    )
