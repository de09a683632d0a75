"""The blob, executed in plain Python: slow, independent of the native code, an oracle for tests.

Reads sections by the layout of docs/TOKENIZER.md and trusts them. Tables are read slot by slot into
dictionaries, so a misplaced entry shows as a difference from the native lookups.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from .blob import (
    DROP_GAPS,
    DROP_MATCHES,
    NO_ID,
    ONLY_AT_START,
    STRIP_END,
    STRIP_START,
    DecoderKind,
    DecoderSpec,
    OpKind,
    Section,
    TextOp,
    TokenFlag,
)
from .form_executor import read_forms
from .regex_dfa import Dfa, Partition, find_pieces
from .unigram_executor import ExecutedUnigram, read_charsmap_section, read_unigram


def read_sections(blob: bytes) -> dict[int, bytes]:
    (n_sections,) = struct.unpack_from("<I", blob, 12)
    sections = {}
    for i in range(n_sections):
        id_, _, offset, n_bytes = struct.unpack_from("<IIQQ", blob, 32 + 24 * i)
        sections[id_] = blob[offset : offset + n_bytes]
    return sections


def _u32(data: bytes) -> list[int]:
    return [int(value) for value in np.frombuffer(data, dtype="<u4")]


def _strings(data: bytes, position: int, n_a: int, n_b: int) -> tuple[str, str, int]:
    a = data[position : position + n_a].decode()
    b = data[position + n_a : position + n_a + n_b].decode()
    return a, b, position + (n_a + n_b + 3) // 4 * 4


def _read_ops(data: bytes) -> list[TextOp]:
    ops, position = [], 4
    for _ in range(struct.unpack_from("<I", data)[0]):
        kind, argument, n_a, n_b = struct.unpack_from("<4I", data, position)
        a, b, position = _strings(data, position + 16, n_a, n_b)
        ops.append(TextOp(OpKind(kind), argument, a, b))
    return ops


def _read_decoder(data: bytes) -> DecoderSpec:
    kind, fallback, strip, n_strip, n_replacements = struct.unpack_from("<5I", data)
    replacements, position = [], 20
    for _ in range(n_replacements):
        n_a, n_b = struct.unpack_from("<2I", data, position)
        a, b, position = _strings(data, position + 8, n_a, n_b)
        replacements.append((a, b))
    return DecoderSpec(DecoderKind(kind), bool(fallback), chr(strip), n_strip, tuple(replacements))


class BlobTokenizer:
    """encode() and decode() of a blob without added-token lstrip/rstrip (not modelled here)."""

    def __init__(self, blob: bytes) -> None:
        s = read_sections(blob)
        _, alphabet, self.n_vocab, unk, flags, _, _, _ = struct.unpack("<8I", s[Section.MODEL])
        self.byte_alphabet = alphabet == 1
        self.unk_id = None if unk == NO_ID else unk
        self.fuse_unk, self.byte_fallback = bool(flags & 1), bool(flags & 2)
        offsets = _u32(s[Section.TOKEN_OFFSETS])
        self.texts = [
            s[Section.TOKEN_BYTES][offsets[i] : offsets[i + 1]] for i in range(self.n_vocab)
        ]
        self.flags = s[Section.TOKEN_FLAGS]
        keys = [id_ for id_ in _u32(s[Section.VOCAB_TABLE]) if id_ != NO_ID]
        self.ids = {self.texts[id_]: id_ for id_ in keys}
        self.unigram: ExecutedUnigram | None = None
        if Section.UNIGRAM in s:
            self.unigram = read_unigram(s[Section.UNIGRAM], self.n_vocab)
        merges = s.get(Section.MERGE_TABLE, b"")
        slots = np.frombuffer(merges, dtype="<u4").reshape(-1, 4).tolist()
        self.merges = {(row[0], row[1]): (row[2], row[3]) for row in slots if row[0] != NO_ID}
        self.byte_ids = [None if i == NO_ID else i for i in _u32(s[Section.BYTE_IDS])]
        self._read_dfas(s)
        self.charsmap = read_charsmap_section(s.get(Section.CHARSMAP, b""))
        ends = iter(_u32(s[Section.SPACES]))
        ranges = [range(first, last + 1) for first, last in zip(ends, ends, strict=True)]
        self.spaces = "".join(chr(code) for code in itertools.chain(*ranges))
        self.forms = read_forms(s.get(Section.FORMS, b""))
        self.normalizer = _read_ops(s[Section.NORMALIZER])
        self.pre_tokenizer = _read_ops(s[Section.PRE_TOKENIZER])
        self.added = self._read_added(s[Section.ADDED])
        n_prefix, _, *affixes = _u32(s[Section.POST_PROCESSOR])
        self.prefix, self.suffix = affixes[:n_prefix], affixes[n_prefix:]
        self.decoder = _read_decoder(s[Section.DECODER])

    def _read_dfas(self, s: dict[int, bytes]) -> None:
        data = s[Section.DFAS]
        n_dfas, n_classes = struct.unpack_from("<2I", data)
        blocks = np.frombuffer(s[Section.CLASS_BLOCKS], dtype=np.uint8).reshape(-1, 256)
        class_of = blocks[np.frombuffer(s[Section.CLASS_INDEX], dtype="<u2")].reshape(-1)
        self.partition = Partition(class_of, n_classes, np.zeros(0, dtype=np.int64))
        self.dfas, position = [], 8
        for _ in range(n_dfas):
            (n_states,) = struct.unpack_from("<I", data, position)
            n_bytes = n_states * (n_classes + 1) * 2
            table = np.frombuffer(data[position + 4 : position + 4 + n_bytes], dtype="<u2")
            self.dfas.append(Dfa(table.reshape(n_states, -1)))
            position += 4 + (n_bytes + 3) // 4 * 4

    @staticmethod
    def _read_added(data: bytes) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
        n_raw, n_normalized = struct.unpack_from("<2I", data)
        texts = data[8 + 16 * (n_raw + n_normalized) :]
        entries: list[tuple[str, tuple[int, int]]] = []
        for i in range(n_raw + n_normalized):
            offset, n_bytes, id_, flags = struct.unpack_from("<4I", data, 8 + 16 * i)
            entries.append((texts[offset : offset + n_bytes].decode(), (id_, flags)))
        return dict(entries[:n_raw]), dict(entries[n_raw:])

    def encode(self, text: str, special: bool = False, bos: bool = True) -> list[int]:
        ids = list(self.prefix) if bos else []
        for begin, segment, id_ in self._find_added(text, self.added[0], special):
            if id_ is not None:
                ids.append(id_)
                continue
            for normalized in self._run(self.normalizer, [segment], begin == 0):
                for start, part, inner in self._find_added(normalized, self.added[1], special):
                    if inner is not None:
                        ids.append(inner)
                        continue
                    at_start = begin == 0 and start == 0
                    for piece in self._run(self.pre_tokenizer, [part], at_start):
                        ids.extend(self._piece_ids(piece))
        return ids + (self.suffix if bos else [])

    @staticmethod
    def _find_added(
        text: str, tokens: dict[str, tuple[int, int]], special: bool
    ) -> Iterator[tuple[int, str, int | None]]:
        done = position = 0
        lengths = sorted({len(token) for token in tokens}, reverse=True)
        while position < len(text):
            candidates = (text[position : position + length] for length in lengths)
            token = next((c for c in candidates if c in tokens), None)
            if token is None:
                position += 1
                continue
            id_, flags = tokens[token]
            begin, position = position, position + len(token)
            if flags & 1 and not special:
                continue
            if done < begin:
                yield done, text[done:begin], None
            yield begin, token, id_
            done = position
        if done < len(text):
            yield done, text[done:], None

    def _run(self, ops: Sequence[TextOp], pieces: list[str], at_start: bool) -> list[str]:
        for op in ops:
            out: list[str] = []
            for i, piece in enumerate(pieces):
                if op.kind == OpKind.SPLIT:
                    found = find_pieces(self.dfas[op.argument & 0xFFFF], self.partition, piece)
                    drop = {True: op.argument & DROP_MATCHES, False: op.argument & DROP_GAPS}
                    out += [part for part, is_match in found if not drop[is_match]]
                elif op.kind == OpKind.REPLACE_MATCHES:
                    found = find_pieces(self.dfas[op.argument], self.partition, piece)
                    out.append("".join(op.a if is_match else part for part, is_match in found))
                elif op.kind == OpKind.STRIP:
                    piece = piece.lstrip(self.spaces) if op.argument & STRIP_START else piece
                    out.append(piece.rstrip(self.spaces) if op.argument & STRIP_END else piece)
                elif op.kind == OpKind.CHARSMAP:
                    out.append(self.charsmap(piece))
                elif op.kind == OpKind.REPLACE:
                    out.append(piece.replace(op.a, op.b))
                elif op.kind == OpKind.FORM:
                    out.append(self.forms[op.argument].apply(piece))
                elif op.kind == OpKind.PREPEND:
                    out.append(op.a + piece)
                else:
                    skip = op.argument == ONLY_AT_START and not (at_start and i == 0)
                    out.append(piece if skip or piece.startswith(op.b) else op.a + piece)
            pieces = [piece for piece in out if piece]
        return pieces

    def _piece_ids(self, piece: str) -> list[int]:
        if self.unigram is None:
            return self._merge(self._symbols(piece))
        ids: list[int] = []
        for text, id_ in self.unigram.best_path(piece):
            id_ = self.ids.get(text.encode()) if id_ is None else id_
            fallback = [self.byte_ids[byte] for byte in text.encode()]
            if id_ is not None:
                ids.append(id_)
            elif self.byte_fallback and None not in fallback:
                ids += [f for f in fallback if f is not None]
            else:
                assert self.unk_id is not None
                ids.append(self.unk_id)
        return ids

    def _symbols(self, piece: str) -> list[int]:
        whole = self.ids.get(piece.encode())
        if whole is not None and self.flags[whole] & TokenFlag.WHOLE:
            return [whole]
        out: list[int] = []
        n_unknown = 0
        units = (
            [bytes([byte]) for byte in piece.encode()]
            if self.byte_alphabet
            else [character.encode() for character in piece]
        )
        for unit in units:
            id_ = self.byte_ids[unit[0]] if self.byte_alphabet else self.ids.get(unit)
            if id_ is None:
                fallback = [self.byte_ids[byte] for byte in unit]
                if self.byte_fallback and None not in fallback:
                    out += [f for f in fallback if f is not None]
                    continue
                n_unknown += 1
                if n_unknown > 1 and not self.fuse_unk and self.unk_id is not None:
                    out.append(self.unk_id)
                continue
            if n_unknown and self.unk_id is not None:
                out.append(self.unk_id)
            n_unknown = 0
            out.append(id_)
        return out + ([self.unk_id] if n_unknown and self.unk_id is not None else [])

    def _merge(self, ids: list[int]) -> list[int]:
        while True:
            ranked = [
                (self.merges[pair][0], i)
                for i, pair in enumerate(itertools.pairwise(ids))
                if pair in self.merges
            ]
            if not ranked:
                return ids
            _, i = min(ranked)
            ids = [*ids[:i], self.merges[ids[i], ids[i + 1]][1], *ids[i + 2 :]]

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        hidden = TokenFlag.ABSENT if special else TokenFlag.ABSENT | TokenFlag.SPECIAL
        tokens = [id_ for id_ in ids if not self.flags[id_] & hidden]
        texts = [self.texts[id_] for id_ in tokens]
        spec = self.decoder
        if spec.kind == DecoderKind.BYTES:
            return b"".join(texts).decode(errors="replace")
        if spec.kind == DecoderKind.JOIN:
            return " ".join(text.decode() for text in texts)
        parts: list[str] = []
        run: list[int] = []
        for i, (id_, text) in enumerate(zip(tokens, texts, strict=True)):
            if spec.byte_fallback and self.flags[id_] & TokenFlag.BYTE:
                run.append(int(text[3:5], 16))
                continue
            parts.append(_decode_run(run))
            run = []
            piece = text.decode()
            for a, b in spec.replacements:
                drop = spec.kind == DecoderKind.METASPACE and i == 0
                piece = piece.replace(a, "" if drop else b)
            parts.append(piece)
        out = "".join([*parts, _decode_run(run)])
        n_strip = 0
        while n_strip < spec.n_strip and out[n_strip : n_strip + 1] == spec.strip:
            n_strip += 1
        return out[n_strip:]


def _decode_run(run: list[int]) -> str:
    try:
        return bytes(run).decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(run)
