"""Spoiled files: bytes damaged anywhere, and JSON that parses but says something else."""

from __future__ import annotations

import json
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63), 1e308, 0.5,
    1e-320, "", "a", "\u2581", "\ud800", "x" * 600, "F32", "BPE", "Unigram", "[", "(?i:a)|\\p{L}+",
    "(a+)+$", [], [0], [[]], [0, 2**40], {}, {"type": "BPE"}, {"Regex": "(?:"}, {"String": ""},
)  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside; of long lists and objects the first and last 30."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if len(keys) > 60:
        keys = keys[:30] + keys[-30:]
    places = [(value, key) for key in keys]
    for key in keys:
        places += _places(value[key])
    return places


def _spoil_place(container: Any, key: Any, rng: random.Random) -> None:
    old = container[key]
    kind = rng.random()
    if kind < 0.2:
        del container[key]
    elif kind < 0.35 and isinstance(old, int | float):
        container[key] = rng.choice([old + 1, old - 1, -old, old * 2, old * 2**33, str(old)])
    elif kind < 0.35 and isinstance(old, str):
        container[key] = rng.choice([old + "x", old[:-1], old.upper(), old * 3, [old], "\0" + old])
    elif kind < 0.35 and isinstance(old, list):
        container[key] = rng.choice([old[:-1], old[::-1], old + old[:1], old * 2])
    elif kind < 0.45 and isinstance(container, dict):
        container[rng.choice(["", "x", str(key) + "_", *map(str, container)])] = old
    else:
        container[key] = rng.choice(VALUES)


def spoil_json(data: bytes, rng: random.Random) -> bytes:
    """The document with one to three values changed, dropped or doubled."""
    root = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = _places(root)
        if not places:
            break
        _spoil_place(*rng.choice(places), rng)
    text = json.dumps(root)
    if rng.random() < 0.05:  # a key twice
        text = text.replace("{", '{"type": 1, "type": 1, ', 1)
    return text.encode()


def spoil_bytes(data: bytes, rng: random.Random, n_head: int) -> bytes:
    """Bytes flipped, replaced, cut out, put in or cut off, mostly in the first `n_head`."""
    out = bytearray(data)
    kind = rng.random()
    if kind < 0.1:
        return bytes(out[: rng.randrange(len(out))])
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(min(n_head, len(out)) if rng.random() < 0.95 else len(out))
        if kind < 0.5:
            out[at] ^= 1 << rng.randrange(8)
        elif kind < 0.8:
            out[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), rng.randbytes(8), b"\0\0\0\x80"])
        elif kind < 0.9:
            del out[at : at + rng.randrange(1, 9)]
        else:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(out)
