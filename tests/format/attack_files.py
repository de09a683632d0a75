"""Builds the spoiled files of native/tests/format/attacks.json."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA_START = 16384
TABLE = Path(__file__).parents[2] / "native" / "tests" / "format" / "attacks.json"


@dataclass(frozen=True)
class AttackTable:
    """The valid file's header text and data, and the cases that spoil it."""

    header: str
    data: bytes
    cases: list[dict[str, Any]]


def load_table() -> AttackTable:
    raw = json.loads(TABLE.read_text(encoding="ascii"))
    return AttackTable(raw["header"], bytes.fromhex(raw["data_hex"]), raw["cases"])


def seal(text: str, data_start: int) -> bytes:
    """Length and header with a right digest, written independently of edgellm."""
    zeroed = re.sub(
        r'("edgellm\.header_sha256":")[0-9a-f]{64}', lambda m: m[1] + "0" * 64, text, count=1
    )
    header = zeroed.encode("ascii").ljust(data_start - 8, b" ")
    blob = struct.pack("<Q", len(header)) + header
    digest = hashlib.sha256(blob).hexdigest().encode()
    return re.sub(rb'("edgellm\.header_sha256":")0{64}', lambda m: m[1] + digest, blob, count=1)


def build(table: AttackTable, case: dict[str, Any]) -> bytes:
    """The bytes of one case; {} gives the valid file."""
    text = table.header
    data_start = case.get("data_start", DATA_START)
    padded = text.ljust(data_start - 8)
    if case.get("seal", True):
        for find, replace in case.get("edits", ()):
            assert text.count(find) == 1, f"{find!r} occurs {text.count(find)} times"
            text = text.replace(find, replace)
        blob = bytearray(seal(text, data_start))
    else:
        for find, replace in case.get("edits", ()):
            assert padded.count(find) == 1
            assert len(find) == len(replace)
            padded = padded.replace(find, replace)
        blob = bytearray(struct.pack("<Q", len(padded)) + padded.encode("ascii"))
    blob += table.data
    if "header_len_hex" in case:
        blob[:8] = struct.pack("<Q", int(case["header_len_hex"], 16))
    for offset in case.get("flip", ()):
        blob[data_start + offset] ^= 0xFF
    n_bytes = case.get("file_bytes", len(blob))
    return bytes(blob[:n_bytes].ljust(n_bytes, b"\0"))
