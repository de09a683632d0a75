"""Strings that tokenizers get wrong: joined emoji, borders of the surrogates, right-to-left text,
stacks of marks, long runs of spaces, controls, folds of case, spellings of special tokens, and what
the vocabulary itself is made of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Rng = random.Random

PEOPLE = "\U0001f468\U0001f469\U0001f467\U0001f466\U0001f9d1\U0001f575\U0001f3f4\u2764\U0001f4bb"
EMOJI_JOINTS = ["\u200d", "\ufe0f", "\ufe0e", "\u200d\u200d", "\u20e3", "\U0001f3fb", "\U0001f3ff"]
TAGS = "".join(map(chr, range(0xE0061, 0xE007B))) + "\U000e007f"
BORDERS = (
    "\ud7ff\ue000\ufffd\ufffe\uffff\ufeff\ufdd0\ufdef\U00010000\U0001ffff\U0010fffe\U0010ffff"
    "\x7f\x80\u07ff\u0800\ud7fb\uf8ff\U000f0000\U000e0001"
)
BIDI = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2002\u2003\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = "\u200b\u200c\u200d\u2060\u00ad\u034f\u115f\u180e\ufeff\u3164\u2062\ufff9\ufffc"
FOLDS = "\u0130\u0131\u017f\u212a\u212b\u00df\u1e9e\u03c2\u03c3\u01c5\ufb01\ufb03\u0345\u1fb3\u2126"
NUMBERS = "0123456789\u0660\u0967\u0e53\u2167\u00b2\u2075\u00bd\u3007\u4e94\U0001d7d8\U00010107"
MARKED = "\u2581_\u0120\u010a\u0142\u0141"  # what vocabularies show for spaces and bytes
PATTERN_TEXTS = [
    "'s", "'S", "'LL", "'ve", "\u2019re", "'\u017f", "n't", " 'd", "''", "!!!", "...", "?!", "\r\n",
    "\n\n", " \n", "\n ", "\t\t", "://", "->", "==", "/*", "*/", "\\n", "$", "1,000.00", "0x1F",
    "1e-9", "<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|eot_id|>", "<|im_", "|>", "<", "<0x0A>", "<0xFF>", "<0x", "[INST]", "<<SYS>>",
]  # fmt: skip
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "with", "they", "have")
SCRIPTS = (
    (0x21, 0x7F), (0xA1, 0x180), (0x180, 0x250), (0x250, 0x2B0), (0x370, 0x400), (0x400, 0x530),
    (0x5D0, 0x5EB), (0x620, 0x700), (0x900, 0x980), (0xB80, 0xC00), (0xE01, 0xE5C), (0xF00, 0xFC0),
    (0x1100, 0x1200), (0x1780, 0x17EA), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2100, 0x2200),
    (0x2500, 0x2600), (0x3000, 0x3100), (0x3400, 0x3500), (0x4E00, 0xA000), (0xAC00, 0xD7A4),
    (0xF900, 0xFB00), (0xFB00, 0xFE00), (0xFE20, 0xFE70), (0xFF00, 0xFFF0), (0x10330, 0x10350),
    (0x1D400, 0x1D800), (0x1F1E6, 0x1F200), (0x1F300, 0x1FB00), (0x20000, 0x20200),
)  # fmt: skip
MARKS = (
    *range(0x300, 0x370), *range(0x591, 0x5BE), *range(0x64B, 0x660), *range(0x93A, 0x950),
    *range(0xE31, 0xE3B), *range(0x1AB0, 0x1ABF), *range(0x20D0, 0x20F1), *range(0x3099, 0x309B),
    *range(0x1161, 0x1176), *range(0x11A8, 0x11C3), 0xFE20, 0x1D165, 0x1E8D0,
)  # fmt: skip


def _characters(rng: Rng, low: int, high: int, n_most: int) -> str:
    return "".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, n_most)))


def _emoji(rng: Rng) -> str:
    kind = rng.random()
    if kind < 0.2:
        return _characters(rng, 0x1F1E6, 0x1F200, 5)
    if kind < 0.3:
        return "\U0001f3f4" + "".join(rng.choices(TAGS, k=rng.randint(1, 6)))
    parts = rng.choices(PEOPLE, k=rng.randint(1, 6))
    return "".join(part + rng.choice(EMOJI_JOINTS) for part in parts)


def _right_to_left(rng: Rng) -> str:
    script = rng.choice(((0x5D0, 0x5EB), (0x620, 0x64B), (0xFB1D, 0xFB50), (0xFE70, 0xFEFD)))
    parts = [_characters(rng, *script, 8) for _ in range(rng.randint(1, 4))]
    return rng.choice([*BIDI, " "]).join([rng.choice(BIDI), *parts])


def _combining(rng: Rng) -> str:
    base = rng.choice("aeoAs1 \u0915\u0e01\u05d0\u0627\uac00\u1112\u304b\u212b\u01d6\u1e69")
    n_marks = rng.choice((1, 1, 2, 3, 30))
    return base + "".join(chr(rng.choice(MARKS)) for _ in range(n_marks))


def _spaces(rng: Rng) -> str:
    if rng.random() < 0.3:
        return "".join(rng.choices(SPACES, k=rng.randint(1, 12)))
    n_most = 300 if rng.random() < 0.1 else 20
    return rng.choice([" ", " ", " ", *SPACES, *MARKED]) * rng.randint(1, n_most)


def _controls(rng: Rng) -> str:
    controls = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *INVISIBLE, *BIDI]
    return "".join(rng.choices(controls, k=rng.randint(1, 6)))


def _run(rng: Rng) -> str:
    unit = rng.choice(["a", "ab", "0", "=", "-", "\u00e9", "\u4f60", "ha", "'", "A", "\U0001f600"])
    return unit * rng.choice((2, 3, 7, 39, 40, 41, 42, rng.randint(2, 400)))


def _any(rng: Rng) -> str:
    codes = (rng.randrange(0x110000) for _ in range(rng.randint(1, 10)))
    return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def _word(rng: Rng) -> str:
    word = rng.choice(WORDS)
    return rng.choice((word, word, " " + word, word.title(), word.upper(), word + word))


KINDS: tuple[Callable[[Rng], str], ...] = (
    _emoji,
    _right_to_left,
    _combining,
    _spaces,
    _controls,
    _run,
    _any,
    _word,
    _word,
    lambda rng: rng.choice(BORDERS),
    lambda rng: "".join(rng.choices(FOLDS + NUMBERS + MARKED, k=rng.randint(1, 5))),
    lambda rng: rng.choice(PATTERN_TEXTS),
    lambda rng: _characters(rng, *rng.choice(SCRIPTS), 9),
    lambda rng: "".join(rng.choices("etaoinshrdluETAON", k=rng.randint(1, 14))),
)


def adversarial_strings(seed: int, n_strings: int, tokens: Sequence[str] = ()) -> list[str]:
    """Half of them are of one to three kinds, repeated; `tokens` of the vocabulary, special ones
    among them, stand in the others too, so that merges meet what they were learned on."""
    rng = Rng(seed)
    kinds = [*KINDS, *([lambda rng: rng.choice(tokens)] * 3 if tokens else ())]
    strings = []
    for _ in range(n_strings):
        chosen = rng.sample(kinds, rng.randint(1, 3)) if rng.random() < 0.5 else kinds
        strings.append("".join(rng.choice(chosen)(rng) for _ in range(rng.randint(1, 9))))
    return strings
