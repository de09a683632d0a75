"""Checkpoints' tokenizer files made in tests: byte-level BPE files, ranks, SentencePiece models."""

from __future__ import annotations

import base64
import json
import shutil
import struct
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXTS = [
    "the quick brown fox jumps over the lazy dog; don't they'll we've 12345 2024",
    "Na\u00efve caf\u00e9s in \u0130stanbul \u4f60\u597d\u4e16\u754c",
] * 20
END = "<|endoftext|>"


def trained_bpe() -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_bpe_files(directory: Path, tokenizer_class: str | None) -> None:
    model = trained_bpe()
    vocab = {**model["vocab"], END: len(model["vocab"])}
    write_json(directory / "vocab.json", vocab)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if tokenizer_class is not None:
        config = {"tokenizer_class": tokenizer_class, "eos_token": END, "pad_token": END}
        write_json(directory / "tokenizer_config.json", config)


def write_ranks(path: Path, ranks: dict[bytes, int]) -> None:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def some_ranks() -> dict[bytes, int]:
    words = [b"th", b"the", b" the", b"qu", b"ick", b"ic", b"12", b"123", b"  ", b"\xc3\xa9"]
    tokens = [*(bytes([byte]) for byte in range(256)), *words]
    return {token: rank for rank, token in enumerate(tokens)}


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def proto_int(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & (1 << 64) - 1)


def proto_bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def proto_piece(text: str, score: float, type_: int = 1) -> bytes:
    body = proto_bytes(1, text.encode()) + b"\x15" + struct.pack("<f", score)
    return proto_bytes(1, body + proto_int(3, type_))


def proto_trainer(model_type: int = 2, *, byte_fallback: bool = True) -> bytes:
    return proto_bytes(2, proto_int(3, model_type) + proto_int(35, byte_fallback))


def proto_normalizer(charsmap: bytes = b"", *, prefix: bool = True, squeeze: bool = False) -> bytes:
    body = proto_bytes(2, charsmap) if charsmap else b""
    return proto_bytes(3, body + proto_int(3, prefix) + proto_int(4, squeeze) + proto_int(5, 1))


def proto_pieces() -> bytes:
    mark = "\u2581"
    words = ["th", mark + "t", "he", mark + "the", "ck", "qu", mark + "qu", "ick", "in", "own"]
    letters = [mark, *"thequickbrownfxjmpsvlazydg"]
    letters = list(dict.fromkeys(letters))
    out = proto_piece("<unk>", 0.0, 2) + proto_piece("<s>", 0.0, 3) + proto_piece("</s>", 0.0, 3)
    for byte in range(256):
        out += proto_piece(f"<0x{byte:02X}>", 0.0, 6)
    for rank, text in enumerate([*words, *letters]):
        out += proto_piece(text, float(-rank))
    return out + proto_piece("<user>", 0.0, 4)


def write_sentencepiece(path: Path, tail: bytes | None = None) -> None:
    path.write_bytes(
        proto_pieces() + (proto_trainer() + proto_normalizer() if tail is None else tail)
    )


def shared_copy(shared_data: Path, name: str, target: Path) -> Path:
    """The files of one shared tokenizer under the names that a checkpoint gives them."""
    for path in (shared_data / "tokenizers" / name).iterdir():
        known = "tokenizer_config.json" if path.name.startswith("tokenizer_config") else path.name
        shutil.copyfile(path, target / known)
    return target


def write_charsmap(rules: dict[str, str]) -> bytes:
    """SentencePiece's precompiled form of `rules`: a double array, 256 units per node."""
    children: list[dict[int, int]] = [{}]
    values: dict[int, int] = {}
    texts = b""
    for key, value in rules.items():
        node = 0
        for byte in key.encode():
            node = children[node].setdefault(byte, len(children))
            if node == len(children):
                children.append({})
        values[node] = len(texts)
        texts += value.encode() + b"\0"
    units = [0] * (256 * (len(children) + 1))

    units[0] = 1 << 8 << 10
    for node, below in enumerate(children):
        for label, child in below.items():
            position = node + 1 << 8 | label
            offset = position ^ (child + 1 << 8)
            units[position] = offset << 10 | (child in values) << 8 | label
    for node, at in values.items():
        units[node + 1 << 8] = 1 << 31 | at
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts
