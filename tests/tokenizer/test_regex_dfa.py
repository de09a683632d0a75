"""The DFA cuts as Oniguruma does inside HF; what has no exact DFA is refused by name."""

from __future__ import annotations

import random

import pytest
from edgellm.converters.tokenizer.components import GPT2_PATTERN
from edgellm.converters.tokenizer.regex_dfa import compile_dfa, find_pieces, make_partition
from edgellm.converters.tokenizer.regex_syntax import parse_regex
from tokenizers import Regex, pre_tokenizers

from edgellm.errors import UnsupportedError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_HEAD = r"[^\r\n\p{L}\p{N}]?"
PATTERNS = {
    "gpt2": GPT2_PATTERN,
    "llama3": rf"{_CONTRACTIONS}|{_HEAD}\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}",
    "qwen2": rf"{_CONTRACTIONS}|{_HEAD}\p{{L}}+|\p{{N}}|{_TAIL}",
    "o200k": rf"{_HEAD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_HEAD}{_UPPER}+{_LOWER}*"
    rf"{_CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++"
    r"[\r\n]*+|\s*[\r\n]|\s+(?!\S)|\s",
    "priorities": r"a+?b|(?:ab|a){2,3}c??|\w+?(?=\s)|x{0,2}y",
}
ALPHABET = (
    "abxyzABC sstdmlvreSTDM'\u2019\u017f\u212a  \t\n\r\n0123\u00bd\u00b2\u0663/.,!\u6f22\u5b57"
    "\u3042\u0301\u00c9\u01c5\u02b0\U0001f600\u00a0\u2003\x00"
)


@pytest.mark.parametrize("name", PATTERNS)
def test_pieces_equal_oniguruma(name: str) -> None:
    node = parse_regex(PATTERNS[name])
    partition = make_partition([node])
    dfa = compile_dfa(node, partition)
    oracle = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
    rng = random.Random(5)
    for _ in range(6000):
        characters = [
            rng.choice(ALPHABET) if rng.random() < 0.9 else chr(rng.randrange(0x20, 0xD800))
            for _ in range(rng.randint(1, 24))
        ]
        text = "".join(characters)
        expected = [piece for piece, _ in oracle.pre_tokenize_str(text)]
        assert [piece for piece, _ in find_pieces(dfa, partition, text)] == expected, repr(text)


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        (r"(?<=a)b", "group"),
        (r"^a", "anchor"),
        (r"a$", "anchor"),
        (r"\bword", "escape"),
        (r"(a)\1", "escape"),
        (r"a*", "empty string"),
        (r"(?:a*)*b", "repeat"),
        (r"(?!ab)c", "lookahead"),
        (r"(?>a)b", "group"),
        (r"(?:ab)++", "possessive"),
        (r"[a[bc]]", "class inside"),
        (r"(?i:ss)x", "folds as a whole"),
        (r"a{2}?", "{n}?"),
        (r"a)", "unbalanced"),
    ],
)
def test_what_has_no_exact_dfa_is_refused_by_name(pattern: str, named: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot be compiled exactly") as caught:
        parse_regex(pattern)
    assert named in str(caught.value)


def test_the_long_s_counts_as_s_when_case_is_ignored() -> None:
    node = parse_regex("(?i:'s)")
    partition = make_partition([node])
    pieces = find_pieces(compile_dfa(node, partition), partition, "x'\u017fy")
    assert pieces == [("x", False), ("'\u017f", True), ("y", False)]
