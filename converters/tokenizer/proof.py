"""Proof at convert time: the native tokenizer against HF on thousands of generated strings.

Also picks the test vectors that travel with the model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgellm.errors import FormatError

from .oracle import Oracle

N_PROOF_STRINGS = 2400
N_RANDOM_VECTORS = 44

HARD_STRINGS = (
    "",
    " ",
    "  leading and trailing  ",
    "Hello, world! It's 2024; don't they'll we've I'm you'd HE'S",
    "tabs\tand\nnewlines\r\n\r\n  \n end",
    "12345678901234567890 3.14159 1,000,000 \u00b2\u00b3 \u0663\u0664 \u2167",
    "def f(x: int) -> str:\n    return f'{x!r}'  # comment\n\n\n",
    "\u00e9\u0301 na\u00efve caf\u00e9 \u0130stanbul \u017fpecial \u212a elvin 'S '\u017f",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u3053\u3093\u306b\u3061\u306f \uc548\ub155",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd \u2764\ufe0f",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u00a0\u2003\u3000\u200b\ufeff\u2028\u2029\u0085",
    "\x00\x01\x1f\x7f\x9f",
    "<s></s><unk><|endoftext|><|im_start|>user\n<|im_end|>",
    "<0x0A> <0xE2><0x82><0xAC> \u2581 \u2581\u2581 a\u2581b",
    "\uffff\U0010ffff\ufffd\ue000\U000e0001",
    "a" * 700,
    "supercalifragilisticexpialidocious" * 12,
    "http://example.org/a?b=c&d=%20#e  --flag=value  C:\\path\\file.txt",
    "   \n   \n\t \n  x\n \n",
)
_RANGES = (
    (0x20, 0x7F),
    (0x20, 0x7F),
    (0xA0, 0x250),
    (0x370, 0x600),
    (0x600, 0x800),
    (0x900, 0xE80),
    (0x1E00, 0x2100),
    (0x2100, 0x2C00),
    (0x3000, 0x3200),
    (0x4E00, 0x4F00),
    (0xAC00, 0xAD00),
    (0xE000, 0xE010),
    (0x1D400, 0x1D800),
    (0x1F300, 0x1FA00),
    (0x20000, 0x20100),
    (0x0, 0x20),
    (0x300, 0x370),
    (0x80, 0xA0),
)
_FRAGMENTS = (
    " ", "  ", "    ", "\n", "\r\n", "\t", "'s", "'T", "'re", "'LL", "n't", "the", " and", "ing",
    "Hello", "WORLD", "1", "42", "2024", "0x1F", "==", "!=", "()", "{}", "...", "//", "\u2581", "_",
    "\u200d", "\ufe0f", "\U0001f600", "\u0301", "<s>", "</s>", "<unk>", "<|im_end|>", "<0x41>", "-",
)  # fmt: skip


class NativeTokenizer(Protocol):
    def encode(self, text: str, special: bool = ..., bos: bool = ...) -> list[int]: ...
    def decode(self, ids: Sequence[int], special: bool = ...) -> str: ...


@dataclass(frozen=True)
class TokenVector:
    """`text` must encode to `ids` with special=False, bos=False."""

    text: str
    ids: tuple[int, ...]


def load_native(blob: bytes) -> NativeTokenizer:
    from edgellm._native import Tokenizer as Native

    return Native.from_blob(blob)


def random_strings(seed: int, n_strings: int, extra: Sequence[str] = ()) -> list[str]:
    """Scripts, emoji, spaces, controls, digits, contractions, special tokens and long words."""
    rng = random.Random(seed)
    fragments = (*_FRAGMENTS, *extra)
    strings = []
    for _ in range(n_strings):
        parts: list[str] = []
        ranges = rng.sample(_RANGES, rng.randint(1, 3))
        for _ in range(rng.randint(1, 24)):
            kind = rng.random()
            if kind < 0.45:
                parts.append(chr(rng.randrange(*rng.choice(ranges))))
            elif kind < 0.85:
                parts.append(rng.choice(fragments))
            elif kind < 0.97:
                parts.append("".join(rng.choices("etaoinshrdluETAO", k=rng.randint(2, 9))))
            else:
                parts.append(rng.choice("aZ9 \u4e00-\n") * rng.randint(2, 80))
        strings.append("".join(parts))
    return strings


def prove(
    path: Path, native: NativeTokenizer, oracle: Oracle, seed: int
) -> tuple[TokenVector, ...]:
    """Compares ids and texts in all modes; returns vectors, or raises on the first difference."""
    added = oracle.original.get_added_tokens_decoder().values()
    specials = [token.content for token in added]
    texts = [*HARD_STRINGS, *random_strings(seed, N_PROOF_STRINGS, specials)]
    for special in (True, False):
        for bos in (True, False):
            encodings = oracle.encode_batch(texts, special=special, bos=bos)
            for text, ids in zip(texts, encodings, strict=True):
                _compare(path, text, native.encode(text, special, bos), ids)
        for text, ids in zip(texts, encodings, strict=True):
            expected = oracle.decode(ids, special=special)
            _compare(path, text, native.decode(ids, special), expected)
    # `encodings` is from the last round: special=False, bos=False.
    chosen = list(range(len(HARD_STRINGS))) + list(
        range(len(HARD_STRINGS), len(HARD_STRINGS) + N_RANDOM_VECTORS)
    )
    return tuple(TokenVector(texts[i], tuple(encodings[i])) for i in chosen)


def _compare(path: Path, text: str, found: object, expected: object) -> None:
    if found != expected:
        raise FormatError(
            f"{path}: the compiled tokenizer differs from HF on {text!r}: {found!r} instead of "
            f"{expected!r}; please report this string",
            code="tokenizer_mismatch",
        )
