"""Unigram and charsmap of the blob, executed in plain Python: slow, independent of native code."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .charsmap import (
    ATTACH,
    CONJUNCT,
    CONSONANT,
    CONTROL,
    EXTEND,
    LINKER,
    PICTOGRAPH,
    PREPEND,
)
from .tries import read_trie

_SHORT_CLUSTER_BYTES = 5
_ZWJ = "\u200d"
_JOINS = {
    "L": ("L", "V", "LV", "LVT"),
    "LV": ("V", "T"),
    "V": ("V", "T"),
    "LVT": ("T",),
    "T": ("T",),
}


@dataclass(frozen=True)
class ExecutedUnigram:
    scores: list[float]
    unknown_score: float
    ids: dict[str, int]

    def best_path(self, piece: str) -> list[tuple[str, int | None]]:
        """Tokens with their ids; None for a run of unknown characters."""
        longest = max(map(len, self.ids), default=1)
        # Per end: score, begin, id of the best path's last token.
        best: list[tuple[float, int, int | None] | None] = [(0.0, 0, None)]
        best += [None] * len(piece)

        def offer(end: int, begin: int, id_: int | None, score: float) -> None:
            here = best[begin]
            known = best[end]
            assert here is not None
            if known is None or here[0] + score > known[0]:
                best[end] = (here[0] + score, begin, id_)

        for begin in range(len(piece)):
            for end in range(begin + 1, min(len(piece), begin + longest) + 1):
                id_ = self.ids.get(piece[begin:end])
                if id_ is not None:
                    offer(end, begin, id_, self.scores[id_])
            if piece[begin] not in self.ids:
                offer(begin + 1, begin, None, self.unknown_score)
        path: list[tuple[str, int | None]] = []
        end = len(piece)
        while end > 0:
            node = best[end]
            assert node is not None
            _, begin, id_ = node
            if id_ is None and path and path[-1][1] is None:
                path[-1] = (piece[begin:end] + path[-1][0], None)
            else:
                path.append((piece[begin:end], id_))
            end = begin
        return path[::-1]


def read_unigram(data: bytes, n_vocab: int) -> ExecutedUnigram:
    score_bytes, _, unknown_score = struct.unpack_from("<IId", data)
    kind = "<f4" if score_bytes == 4 else "<f8"
    scores = np.frombuffer(data, kind, n_vocab, 16).astype(np.float64).tolist()
    ids, end = read_trie(data, 16 + n_vocab * score_bytes)
    assert end == len(data)
    return ExecutedUnigram(scores, unknown_score, {key.decode(): id_ for key, id_ in ids.items()})


def read_charsmap_section(data: bytes) -> Callable[[str], str]:
    """The normalization that a section holds; the empty section changes nothing."""
    if not data:
        return str
    (n,) = struct.unpack_from("<I", data)
    offsets = np.frombuffer(data, "<u4", n + 1, 4).tolist()
    start = 8 + 4 * n
    texts = [data[start + offsets[i] : start + offsets[i + 1]].decode() for i in range(n)]
    values, position = read_trie(data, start + (offsets[n] + 3) // 4 * 4)
    (n_blocks,) = struct.unpack_from("<I", data, position)
    index = np.frombuffer(data, "<u2", 0x1100, position + 4)
    blocks = np.frombuffer(data, np.uint8, n_blocks * 256, position + 4 + 0x2200).reshape(-1, 256)
    bits = blocks[index].reshape(-1).tolist()
    rules = {key.decode(): texts[value] for key, value in values.items()}

    def rule_for(part: str) -> str | None:
        heads = (part[: i + 1] for i in range(len(part)))
        return next((rules[head] for head in heads if head in rules), None)

    def apply(text: str) -> str:
        out = []
        for cluster in _clusters(text, bits):
            short = len(cluster.encode()) <= _SHORT_CLUSTER_BYTES
            whole = rule_for(cluster) if short else None
            if whole is not None:
                out.append(whole)
                continue
            found = ((c, rule_for(c)) for c in cluster)
            out += [c if rule is None else rule for c, rule in found]
        return "".join(out)

    return apply


def _hangul(c: str) -> str:
    code = ord(c)
    if 0xAC00 <= code <= 0xD7A3:
        return "LVT" if (code - 0xAC00) % 28 else "LV"
    for kind, ranges in {
        "L": ((0x1100, 0x115F), (0xA960, 0xA97C)),
        "V": ((0x1160, 0x11A7), (0xD7B0, 0xD7C6)),
        "T": ((0x11A8, 0x11FF), (0xD7CB, 0xD7FB)),
    }.items():
        if any(first <= code <= last for first, last in ranges):
            return kind
    return ""


def _clusters(text: str, bits: list[int]) -> Iterator[str]:
    begin = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or _breaks(text[begin:at], text[at], bits):
            yield text[begin:at]
            begin = at


def _breaks(cluster: str, right: str, bits: list[int]) -> bool:
    left = cluster[-1]
    if left + right == "\r\n":
        return False
    left_bits, right_bits = bits[ord(left)], bits[ord(right)]
    if (left_bits | right_bits) & CONTROL:
        return True
    if (
        right_bits & ATTACH
        or left_bits & PREPEND
        or _hangul(right) in _JOINS.get(_hangul(left), ())
    ):
        return False
    if right_bits & PICTOGRAPH and left == _ZWJ:
        return not _begins(cluster[:-1], bits, PICTOGRAPH, EXTEND)[0]
    if right_bits & CONSONANT:
        found, between = _begins(cluster, bits, CONSONANT, CONJUNCT | LINKER)
        return not (found and any(bits[ord(c)] & LINKER for c in between))
    return True


def _begins(text: str, bits: list[int], head: int, filler: int) -> tuple[bool, str]:
    """Whether `text` ends in a `head` and fillers after it; the fillers."""
    n = len(text)
    while n > 0 and bits[ord(text[n - 1])] & filler:
        n -= 1
    return n > 0 and bool(bits[ord(text[n - 1])] & head), text[n:]
