"""Unicode normal forms and lower case as tables, taken from the oracle itself.

Which characters decompose, compose and move depends on the Unicode version inside HF `tokenizers`,
so mappings are probed there. Only the numbers of the combining classes, which Unicode never
changes, come from Python's `unicodedata`, and the order they imply is checked against the oracle.
Knows no blob.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import normalizers

from edgellm.errors import UnsupportedError

from .unicode_classes import N_CODE_POINTS

_SEPARATOR = "\n"  # a starter that never composes, in all forms and versions
_HANGUL = range(0xAC00, 0xAC00 + 11172)
_SURROGATES = range(0xD800, 0xE000)
# Unassigned planes and private use: no normal form touches them.
_LIMIT = 0x40000
_TAGS = range(0xE0000, 0xE1000)
_COMBINING_240 = 0x0345
_COMBINING_232 = 0x0315
# Character by character, whatever stands beside it.
MAPPINGS = ("Lowercase", "StripAccents", "Nmt")
FORMS = ("NFC", "NFD", "NFKC", "NFKD", *MAPPINGS)


@dataclass(frozen=True)
class FormTables:
    """One form: what each code point becomes, how marks are ordered, which pairs compose."""

    composes: bool
    mapped: dict[int, str]
    combining_class: dict[int, int]
    unstable: NDArray[np.bool_]  # [N_CODE_POINTS], may change or move, alone or with neighbours
    hangul: bool  # syllables become letters by arithmetic
    pairs: dict[tuple[int, int], int]


def _apply(form: str, texts: Iterable[str]) -> list[str]:
    normalizer = getattr(normalizers, form)()
    # Nmt makes a space of the line break, but leaves every letter alone.
    separator = "x" if form == "Nmt" else _SEPARATOR
    return str(normalizer.normalize_str(separator.join(texts))).split(separator)


@cache
def _code_points() -> list[int]:
    excluded = {ord(_SEPARATOR), *_SURROGATES, *_HANGUL}
    return [c for c in (*range(_LIMIT), *_TAGS) if c not in excluded]


@cache
def _mapping(form: str) -> dict[int, str]:
    texts = [chr(c) for c in _code_points()]
    if form == "Nmt":
        texts = [*(text for text in texts if text != "x"), _SEPARATOR]
    results = _apply(form, texts)
    if len(results) != len(texts):
        raise _surprise(f"{form} makes or removes line breaks")
    return {ord(t): r for t, r in zip(texts, results, strict=True) if t != r}


def _surprise(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"normalizer tables: {what}, which no known Unicode version does; report the version of "
        "your tokenizers package",
        code="tokenizer_unsupported",
    )


@cache
def _combining_classes() -> dict[int, int]:
    """Classes of the marks that stay themselves; what decomposes is ordered by its parts."""
    candidates = [c for c in _code_points() if c not in _mapping("NFD")]
    # A mark moves over one of a higher class; nothing is above 240, so two probes find all marks.
    high, low = chr(_COMBINING_240), chr(_COMBINING_232)
    marks = []
    moved = _apply("NFD", (high + chr(c) for c in candidates))
    low_moved = _apply("NFD", (chr(c) + low for c in candidates))
    for c, one, two in zip(candidates, moved, low_moved, strict=True):
        if one != high + chr(c) or two != chr(c) + low:
            marks.append(c)
    # One mark of each class, out of those that this oracle knows.
    by_class: dict[int, str] = {}
    for c in marks:
        by_class.setdefault(unicodedata.combining(chr(c)), chr(c))
    values = sorted(value for value in by_class if value)
    probes = [(c, value) for c in marks for value in values]
    orders = _apply("NFD", (by_class[value] + chr(c) for c, value in probes))
    classes: dict[int, int] = {}
    for (c, value), order in zip(probes, orders, strict=True):
        if order == by_class[value] + chr(c):
            classes[c] = max(value, classes.get(c, 0))
    back = _apply("NFD", (chr(c) + by_class[classes[c]] for c in marks))
    if any(b != chr(c) + by_class[classes[c]] for c, b in zip(marks, back, strict=True)):
        raise _surprise("there is a new combining class")
    return classes


@cache
def _pairs() -> dict[tuple[int, int], int]:
    pairs: dict[tuple[int, int], int] = {}
    decomposed = [(c, text) for c, text in _mapping("NFD").items() if len(text) > 1]
    again = _apply("NFC", (text for _, text in decomposed))
    firsts = _apply("NFC", (text[:-1] for _, text in decomposed))
    for (c, text), composed, first in zip(decomposed, again, firsts, strict=True):
        if composed != chr(c):  # excluded from composition
            continue
        if len(first) != 1:
            raise _surprise(f"U+{c:04X} composes of more than two")
        pairs[ord(first), ord(text[-1])] = c
    return pairs


@cache
def form_tables(form: str) -> FormTables:
    unstable = np.zeros(N_CODE_POINTS, dtype=np.bool_)
    if form in MAPPINGS:
        mapped = _mapping(form)
        unstable[list(mapped)] = True
        return FormTables(False, mapped, {}, unstable, hangul=False, pairs={})
    composes = form in ("NFC", "NFKC")
    mapped = _mapping("NFKD" if form.startswith("NFK") else "NFD")
    classes = _combining_classes()
    unstable[[*_mapping(form), *classes]] = True
    if composes:
        pairs = _pairs()
        # Medial and final letters join the syllable before them.
        seconds = [second for _, second in pairs]
        unstable[[*seconds, *range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]] = True
        return FormTables(True, mapped, classes, unstable, hangul=True, pairs=pairs)
    unstable[_HANGUL.start : _HANGUL.stop] = True
    return FormTables(False, mapped, classes, unstable, hangul=True, pairs={})
