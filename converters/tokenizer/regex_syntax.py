"""Parser for the regex dialect of pre-tokenizers: Oniguruma's Ruby syntax, as HF runs it.

Gives a small tree of sets, sequences, ordered alternatives, repeats and one-character lookaheads.
Whatever has no exact counterpart there is refused by name. Knows nothing of automata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.errors import UnsupportedError

from .unicode_classes import (
    N_CODE_POINTS,
    Mask,
    complement,
    mask_of,
    probe_atom,
    probe_literal_ignoring_case,
)

_MAX_REPEAT = 64
_SIMPLE_ESCAPES = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "a": 7, "e": 27}
_SET_ESCAPES = "sSdDwWhH"


@dataclass(frozen=True)
class CharSet:
    mask: Mask


@dataclass(frozen=True)
class Sequence_:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Alternatives:
    options: tuple[Node, ...]  # earlier ones are preferred


@dataclass(frozen=True)
class Repeat:
    body: Node
    minimum: int
    maximum: int | None  # None = no limit
    greedy: bool


@dataclass(frozen=True)
class Lookahead:
    """The next code point is (or, negated, is not) in the set; the end of text is in no set."""

    mask: Mask
    negated: bool


Node = CharSet | Sequence_ | Alternatives | Repeat | Lookahead


def nullable(node: Node) -> bool:
    """Whether the node can match the empty string."""
    if isinstance(node, CharSet):
        return False
    if isinstance(node, Sequence_):
        return all(nullable(part) for part in node.parts)
    if isinstance(node, Alternatives):
        return any(nullable(option) for option in node.options)
    if isinstance(node, Repeat):
        return node.minimum == 0 or nullable(node.body)
    return True


def literal_node(text: str) -> Node:
    return Sequence_(tuple(CharSet(mask_of([ord(c)])) for c in text))


def parse_regex(pattern: str) -> Node:
    parser = _Parser(pattern)
    node = parser.alternatives(ignore_case=False)
    if parser.position != len(pattern):
        raise parser.refuse("an unbalanced ')'")
    if nullable(node):
        raise parser.refuse("a pattern that matches the empty string")
    return node


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0
        self.literals: list[str] = []  # the run of case-insensitive literals being read

    def refuse(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            f"regex {self.pattern!r}, position {self.position}: {what} cannot be compiled exactly",
            code="tokenizer_unsupported",
        )

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.position)

    def accept(self, text: str) -> bool:
        if not self.peek(text):
            return False
        self.position += len(text)
        return True

    def next_char(self) -> str:
        if self.position >= len(self.pattern):
            raise self.refuse("a pattern that ends too early")
        self.position += 1
        return self.pattern[self.position - 1]

    def alternatives(self, ignore_case: bool) -> Node:
        options = [self.sequence(ignore_case)]
        while self.accept("|"):
            options.append(self.sequence(ignore_case))
        return options[0] if len(options) == 1 else Alternatives(tuple(options))

    def sequence(self, ignore_case: bool) -> Node:
        parts: list[Node] = []
        self.end_literals()
        while self.position < len(self.pattern) and not self.peek("|") and not self.peek(")"):
            if self.accept("(?i)"):
                # Applies to the rest of the group, alternatives included.
                self.end_literals()
                rest = self.alternatives(ignore_case=True)
                return Sequence_((*parts, rest))
            parts.append(self.quantified(ignore_case))
        self.end_literals()
        return parts[0] if len(parts) == 1 else Sequence_(tuple(parts))

    def quantified(self, ignore_case: bool) -> Node:
        node = self.atom(ignore_case)
        while (bounds := self.bounds()) is not None:
            self.end_literals()
            minimum, maximum, is_interval = bounds
            if self.peek("?"):
                if is_interval and minimum == maximum:
                    raise self.refuse("'{n}?'")
                self.position += 1
                node = self.repeat(node, minimum, maximum, greedy=False)
            elif not is_interval and self.accept("+"):
                node = self.possessive(node, minimum, maximum)
            else:
                node = self.repeat(node, minimum, maximum, greedy=True)
        return node

    def repeat(self, node: Node, minimum: int, maximum: int | None, greedy: bool) -> Node:
        if isinstance(node, Lookahead) or (maximum is None and nullable(node)):
            raise self.refuse("a repeat of something that can be empty")
        if max(minimum, maximum or 0) > _MAX_REPEAT:
            raise self.refuse(f"a repeat of more than {_MAX_REPEAT}")
        return Repeat(node, minimum, maximum, greedy)

    def possessive(self, node: Node, minimum: int, maximum: int | None) -> Node:
        """X*+ is X*(?!X), X++ is X+(?!X) and X?+ is (?:X|(?!X)), for one character X."""
        if not isinstance(node, CharSet):
            raise self.refuse("a possessive repeat of more than one character")
        stop = Lookahead(node.mask, negated=True)
        if maximum == 1:
            return Alternatives((node, stop))
        return Sequence_((Repeat(node, minimum, maximum, True), stop))

    def bounds(self) -> tuple[int, int | None, bool] | None:
        for symbol, minimum, maximum in (("?", 0, 1), ("*", 0, None), ("+", 1, None)):
            if self.accept(symbol):
                return minimum, maximum, False
        if not self.peek("{"):
            return None
        close = self.pattern.find("}", self.position)
        low, comma, high = self.pattern[self.position + 1 : max(close, 0)].partition(",")
        if close < 0 or not (low + high).isdigit() or not (low + high).isascii():
            raise self.refuse("a literal '{'")
        self.position = close + 1
        lowest = int(low) if low else 0
        highest = (int(high) if high else None) if comma else lowest
        if highest is not None and highest < lowest:
            raise self.refuse("an interval whose bounds are swapped")
        return lowest, highest, True

    def atom(self, ignore_case: bool) -> Node:
        if self.peek("("):
            self.end_literals()
            return self.group(ignore_case)
        if self.peek("["):
            self.end_literals()
            return self.bracket(ignore_case)
        if self.accept("\\"):
            return self.escape(ignore_case)
        if self.accept("."):
            self.end_literals()
            return CharSet(probe_atom("."))
        character = self.next_char()
        if character in "^$":
            raise self.refuse(f"the anchor {character!r}")
        if character in "?*+{":
            raise self.refuse(f"a {character!r} with nothing to repeat")
        return self.literal(character, ignore_case)

    def literal(self, character: str, ignore_case: bool) -> Node:
        if not ignore_case:
            return CharSet(mask_of([ord(character)]))
        self.literals.append(character)
        return CharSet(mask_of(list(probe_literal_ignoring_case(character))))

    def end_literals(self) -> None:
        """Refuses a case-insensitive run that also matches as one folded code point."""
        run = "".join(self.literals)
        self.literals.clear()
        for size in (2, 3):
            for begin in range(len(run) - size + 1):
                if probe_literal_ignoring_case(run[begin : begin + size]):
                    raise self.refuse(f"the case-insensitive text {run!r}, which folds as a whole,")

    def group(self, ignore_case: bool) -> Node:
        self.position += 1
        if self.accept("?="):
            return self.lookahead(ignore_case, negated=False)
        if self.accept("?!"):
            return self.lookahead(ignore_case, negated=True)
        if self.accept("?i:"):
            ignore_case = True
        elif self.accept("?-i:"):
            ignore_case = False
        elif not self.accept("?:") and self.peek("?"):
            raise self.refuse(f"the group '({self.pattern[self.position : self.position + 3]}...'")
        node = self.alternatives(ignore_case)
        if not self.accept(")"):
            raise self.refuse("a group that is not closed")
        return node

    def lookahead(self, ignore_case: bool, negated: bool) -> Node:
        node = self.alternatives(ignore_case)
        if not self.accept(")"):
            raise self.refuse("a group that is not closed")
        if not isinstance(node, CharSet):
            raise self.refuse("a lookahead at more than one character")
        return Lookahead(node.mask, negated)

    def escape(self, ignore_case: bool) -> Node:
        begin = self.position
        mask, character = self.escape_set()
        if character is not None:
            return self.literal(character, ignore_case)
        self.end_literals()
        if ignore_case and self.pattern[begin] in "pP":
            return CharSet(probe_atom(f"(?i:\\{self.pattern[begin : self.position]})"))
        assert mask is not None
        return CharSet(mask)

    def escape_set(self) -> tuple[Mask | None, str | None]:
        """After a backslash: the set, or the one character, that the escape stands for."""
        character = self.next_char()
        if character in _SET_ESCAPES:
            positive = probe_atom("\\" + character.lower())
            return (positive if character.islower() else complement(positive)), None
        if character in "pP":
            close = self.pattern.find("}", self.position)
            if not self.accept("{") or close < 0:
                raise self.refuse("a property without braces")
            name = self.pattern[self.position : close]
            self.position = close + 1
            inverted = name.startswith("^") != (character == "P")
            positive = probe_atom(f"\\p{{{name.removeprefix('^')}}}")
            return (complement(positive) if inverted else positive), None
        if character in _SIMPLE_ESCAPES:
            return None, chr(_SIMPLE_ESCAPES[character])
        if character in "xu":
            return None, self.hex_escape(character)
        if character.isalnum():
            raise self.refuse(f"the escape '\\{character}'")
        return None, character

    def hex_escape(self, kind: str) -> str:
        if kind == "x" and self.accept("{"):
            digits, _, rest = self.pattern[self.position :].partition("}")
            self.position = len(self.pattern) - len(rest)
        else:
            n_digits = 2 if kind == "x" else 4
            digits = self.pattern[self.position : self.position + n_digits]
            self.position += n_digits
        try:
            code_point = int(digits, 16)
        except ValueError:
            raise self.refuse("a malformed hexadecimal escape") from None
        if code_point >= N_CODE_POINTS or (kind == "x" and len(digits) <= 2 and code_point > 0x7F):
            raise self.refuse("a hexadecimal escape that is no character")
        return chr(code_point)

    def bracket(self, ignore_case: bool) -> Node:
        begin = self.position
        self.position += 1
        negated = self.accept("^")
        if self.peek("]"):
            raise self.refuse("a class that starts with ']'")
        mask = mask_of([])
        while not self.accept("]"):
            if self.peek("[") or self.peek("&&"):
                raise self.refuse("a class inside a class")
            mask = mask | self.class_item(ignore_case)
        if ignore_case and (negated or mask[128:].any()):
            raise self.refuse(f"the case-insensitive class {self.pattern[begin : self.position]!r}")
        if ignore_case:
            members = [int(c) for c in mask.nonzero()[0]]
            mask = mask_of(_fold(members))
        return CharSet(complement(mask) if negated else mask)

    def class_item(self, ignore_case: bool) -> Mask:
        del ignore_case  # folding happens once, for the whole class
        mask, low = self.class_character()
        if low is None:
            assert mask is not None
            return mask
        if not self.peek("-") or self.pattern.startswith("-]", self.position):
            return mask_of([ord(low)])
        self.position += 1
        _, high = self.class_character()
        if high is None or high < low:
            raise self.refuse("a malformed range in a class")
        return mask_of([c for c in range(ord(low), ord(high) + 1) if not 0xD800 <= c < 0xE000])

    def class_character(self) -> tuple[Mask | None, str | None]:
        character = self.next_char()
        return self.escape_set() if character == "\\" else (None, character)


def _fold(members: Sequence[int]) -> list[int]:
    return sorted({c for member in members for c in probe_literal_ignoring_case(chr(member))})
