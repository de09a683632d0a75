"""Normal forms of the blob, executed in plain Python: slow, independent of the native code."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

_HANGUL = 0xAC00


@dataclass(frozen=True)
class ExecutedForm:
    composes: bool
    records: list[tuple[str, int, int]]  # text, combining class, flags
    record_of: list[int]
    pairs: dict[tuple[int, int], int]

    def apply(self, text: str) -> str:
        parts: list[tuple[int, int]] = []
        for character in text:
            mapped, combining_class, flags = self.records[self.record_of[ord(character)]]
            if flags & 4:
                parts += [(code, 0) for code in _letters(ord(character))]
            elif flags & 2:
                parts += [(ord(c), self.records[self.record_of[ord(c)]][1]) for c in mapped]
            else:
                parts.append((ord(character), combining_class))
        for i in range(len(parts)):
            while i > 0 and parts[i - 1][1] > parts[i][1] > 0:
                parts[i - 1], parts[i] = parts[i], parts[i - 1]
                i -= 1
        return "".join(chr(code) for code, _ in (self._compose(parts) if self.composes else parts))

    def _compose(self, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
        out: list[tuple[int, int]] = []
        starter = -1
        for code, combining_class in parts:
            between = out[starter + 1 :]
            blocked = starter < 0 or any(c >= combining_class for _, c in between)
            joined = None if blocked else self._pair(out[starter][0], code)
            if joined is not None:
                out[starter] = (joined, 0)
                continue
            if combining_class == 0:
                starter = len(out)
            out.append((code, combining_class))
        return out

    def _pair(self, first: int, second: int) -> int | None:
        if 0x1100 <= first < 0x1113 and 0x1161 <= second < 0x1176:
            return _HANGUL + ((first - 0x1100) * 21 + second - 0x1161) * 28
        is_open = _HANGUL <= first < _HANGUL + 11172 and (first - _HANGUL) % 28 == 0
        if is_open and 0x11A8 <= second < 0x11C3:
            return first + second - 0x11A7
        return self.pairs.get((first, second))


def _letters(syllable: int) -> list[int]:
    index = syllable - _HANGUL
    letters = [0x1100 + index // 588, 0x1161 + index // 28 % 21, 0x11A7 + index % 28]
    return letters if index % 28 else letters[:2]


def read_forms(data: bytes) -> list[ExecutedForm]:
    if not data:
        return []
    forms, position = [], 4
    for _ in range(struct.unpack_from("<I", data)[0]):
        composes, n_blocks, n_records, n_pairs, n_bytes = struct.unpack_from("<5I", data, position)
        position += 20
        index = np.frombuffer(data, "<u2", 0x1100, position)
        position += 0x1100 * 2
        blocks = np.frombuffer(data, "<u2", n_blocks * 256, position).reshape(-1, 256)
        position += n_blocks * 512
        texts = position + n_records * 8 + n_pairs * 12
        records = []
        for _ in range(n_records):
            offset, n, combining_class, flags, _ = struct.unpack_from("<I4B", data, position)
            text = data[texts + offset : texts + offset + n].decode()
            records.append((text, combining_class, flags))
            position += 8
        pairs = {}
        for _ in range(n_pairs):
            first, second, composite = struct.unpack_from("<3I", data, position)
            pairs[first, second] = composite
            position += 12
        position = texts + (n_bytes + 3) // 4 * 4
        forms.append(
            ExecutedForm(bool(composes), records, blocks[index].reshape(-1).tolist(), pairs)
        )
    return forms
