"""Sets of code points, taken from the oracle itself.

What `\\p{L}` or `(?i:s)` matches depends on the Unicode version and the case folding of the regex
engine inside HF `tokenizers`. So these sets are probed, never derived from Python's own tables.
Knows nothing of regex structure beyond one character's worth of pattern.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

from edgellm.errors import UnsupportedError

N_CODE_POINTS = 0x110000
_CHUNK = 0x10000
# Surrogates cannot occur in well-formed text; they are members of no set.
_SURROGATES = range(0xD800, 0xE000)
# Planes without any assigned character: probing them in full costs more than all the others. Their
# edges (noncharacters included) are probed, and only if those agree the plane takes their value.
_EMPTY_PLANES = range(4, 14)
_EDGE = 256
_CASE_BLOCK = 256

Mask = NDArray[np.bool_]  # [N_CODE_POINTS], True = member


def mask_of(code_points: list[int]) -> Mask:
    mask = np.zeros(N_CODE_POINTS, dtype=np.bool_)
    mask[code_points] = True
    return mask


def complement(mask: Mask) -> Mask:
    inverse = ~mask
    inverse[_SURROGATES.start : _SURROGATES.stop] = False
    return inverse


@cache
def _chunks() -> tuple[list[int], ...]:
    planes = [n for n in range(N_CODE_POINTS // _CHUNK) if n not in _EMPTY_PLANES]
    full = [
        [c for c in range(n * _CHUNK, (n + 1) * _CHUNK) if c not in _SURROGATES] for n in planes
    ]
    edges = [
        c
        for n in _EMPTY_PLANES
        for begin in (n * _CHUNK, (n + 1) * _CHUNK - _EDGE)
        for c in range(begin, begin + _EDGE)
    ]
    return (*full, edges)


def _complete(mask: Mask, source: str) -> Mask:
    """Fills the inside of the empty planes, and leaves the surrogates out."""
    for plane in _EMPTY_PLANES:
        begin, end = plane * _CHUNK, (plane + 1) * _CHUNK
        edges = np.concatenate([mask[begin : begin + _EDGE], mask[end - _EDGE : end]])
        if edges.any() != edges.all():
            raise UnsupportedError(
                f"regex {source!r} tells unassigned code points apart", code="tokenizer_unsupported"
            )
        mask[begin:end] = edges[0]
    mask[_SURROGATES.start : _SURROGATES.stop] = False
    return mask


@cache
def probe_atom(source: str) -> Mask:
    """The code points that the one-character pattern `source` matches."""
    splitter = pre_tokenizers.Split(Regex(f"(?:{source})+"), "removed")
    return _probe_removed(splitter, source)


def _probe_removed(splitter: pre_tokenizers.PreTokenizer, source: str) -> Mask:
    """The code points that `splitter` takes away."""
    mask = np.ones(N_CODE_POINTS, dtype=np.bool_)
    for code_points in _chunks():
        text = "".join(map(chr, code_points))
        members = np.array(code_points)
        for _, (begin, end) in splitter.pre_tokenize_str(text):
            mask[members[begin:end]] = False
    return _complete(mask, source)


@cache
def probe_digits() -> Mask:
    """What the Digits pre-tokenizer takes for a digit (Rust's char::is_numeric)."""
    splitter = pre_tokenizers.Digits(individual_digits=False)
    mask = np.zeros(N_CODE_POINTS, dtype=np.bool_)
    for code_points in _chunks():
        # A leading letter makes the first piece a non-digit one; from there pieces alternate.
        pieces = splitter.pre_tokenize_str("a" + "".join(map(chr, code_points)))
        members = np.array(code_points)
        for _, (begin, end) in pieces[1::2]:
            mask[members[begin - 1 : end - 1]] = True
    return _complete(mask, "Digits")


@cache
def probe_spaces() -> Mask:
    """White space as lstrip and rstrip of added tokens see it (Rust's char::is_whitespace)."""
    return _probe_removed(pre_tokenizers.WhitespaceSplit(), "WhitespaceSplit")


@cache
def _cased() -> list[str]:
    """The characters that change case. Most blocks have none, so blocks are tried whole first."""
    found: list[str] = []
    for code_points in _chunks():
        for start in range(0, len(code_points), _CASE_BLOCK):
            text = "".join(map(chr, code_points[start : start + _CASE_BLOCK]))
            if text.lower() != text or text.upper() != text or text.casefold() != text:
                found += [c for c in text if (c.lower(), c.upper(), c.casefold()) != (c, c, c)]
    return found


def _matches_one(splitter: pre_tokenizers.Split, character: str) -> bool:
    return not splitter.pre_tokenize_str(character)


@lru_cache(maxsize=4096)
def probe_literal_ignoring_case(literal: str) -> tuple[int, ...]:
    """Single code points that `(?i:literal)` matches.

    Only cased characters can, and a literal of several characters matches one code point only where
    Unicode folds it so ("ss" and U+00DF).
    """
    escaped = "".join(f"\\x{{{ord(c):X}}}" for c in literal)
    splitter = pre_tokenizers.Split(Regex(f"(?i:{escaped})"), "removed")
    candidates = _cased() if len(literal) == 1 else [c for c in _cased() if len(c.casefold()) > 1]
    found = {ord(c) for c in candidates if _matches_one(splitter, c)}
    if len(literal) == 1:
        found.add(ord(literal))
    return tuple(sorted(found))
