"""Keeps what people write from becoming special tokens.

Every special-token string inside the data of a conversation is replaced by one private-use
character before a template sees it, and comes back as plain text when the rendered text is cut
into pieces for the tokenizer. The characters are chosen among those that occur nowhere in the data
or the template, so they cannot be forged. Knows no template language and no tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .errors import InvalidArgumentError, TemplateError

_MAX_DEPTH = 48
_PRIVATE_USE = ((0xE000, 0xF8FF), (0xF0000, 0xFFFFD), (0x100000, 0x10FFFD))
_NEVER = re.compile(r"(?!)")
# Their values are the template's vocabulary, not free text: only whole specials are hidden there.
_NAMES = frozenset({"role", "type"})


@dataclass(frozen=True)
class Piece:
    """A stretch of rendered text; in a `plain` one, nothing may become a special token."""

    text: str
    plain: bool


@lru_cache(maxsize=8)
def special_pattern(specials: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of `specials`, the longest first."""
    longest_first = sorted((s for s in specials if s), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else _NEVER


def plain_data(value: Any, what: str, depth: int = 0) -> Any:
    """`value` rebuilt from plain JSON types, so that a template meets no methods but theirs."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if depth == _MAX_DEPTH:
        message = f"{what} is nested deeper than {_MAX_DEPTH} levels"
        raise InvalidArgumentError(message, code="invalid_argument")
    if isinstance(value, Mapping):
        return {
            plain_data(key, what, depth + 1): plain_data(item, what, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_data(item, what, depth + 1) for item in value]
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    message = f"{what} holds a {type(value).__name__}; use text, numbers, lists and dicts only"
    raise InvalidArgumentError(message, code="invalid_argument")


class Marks:
    """The placeholders of one rendering: `data` is everything the template may print."""

    def __init__(self, specials: tuple[str, ...], data: Sequence[Any], source: str) -> None:
        self._pattern = special_pattern(specials)
        self._specials = specials
        self._used = {c for text in (source, *_texts(data)) for c in text if c >= "\ue000"}
        self._free = self._free_characters()
        self._by_text: dict[str, str] = {}
        self._by_character: dict[str, str] = {}

    def hide(self, text: str) -> str:
        """`text` with a placeholder for every special-token string in it."""
        return self._pattern.sub(lambda found: self._placeholder(found.group()), text)

    def guard(self, made: str, inputs: Iterable[Any]) -> str:
        """`made` by the template out of `inputs`: specials that no input held are hidden too."""
        found = set(self._pattern.findall(made))
        if found:
            known = [text for text in inputs if isinstance(text, str)]
            for special in found:
                if not any(special in text for text in known):
                    made = made.replace(special, self._placeholder(special))
        return made

    def hide_all(self, value: Any, *, edges: bool = False, key: object = None) -> Any:
        """A copy of `value` with all texts hidden, keys too. `edges`: also the beginnings of
        specials at the end of a text and their ends at its start, which could meet there."""
        if isinstance(value, str):
            hidden = self.hide(value)
            return self._hide_edges(hidden) if edges and key not in _NAMES else hidden
        if isinstance(value, dict):
            return {
                self.hide(k) if isinstance(k, str) else k: self.hide_all(v, edges=edges, key=k)
                for k, v in value.items()
            }
        if isinstance(value, list):
            return [self.hide_all(item, edges=edges, key=key) for item in value]
        return value

    def restore(self, text: str) -> str:
        """`text` with all placeholders spelled out."""
        return "".join(self._by_character.get(c, c) for c in text) if self._by_character else text

    def pieces(self, rendered: str) -> list[Piece]:
        """Cut at the placeholders, and nowhere else."""
        if not self._by_character:
            return merged([Piece(rendered, plain=False)])
        cut = re.split(f"([{''.join(self._by_character)}])", rendered)
        return merged(
            Piece(self._by_character.get(part, part), plain=part in self._by_character)
            for part in cut
        )

    def n_specials(self, rendered: str) -> int:
        """Special tokens that tokenizing `rendered` would make."""
        return len(self._pattern.findall(rendered))

    def _hide_edges(self, text: str) -> str:
        body = text.strip()
        start = text.find(body)
        head = max((_overlap(special, body) for special in self._specials), default=0)
        tail = max((_overlap(body, special) for special in self._specials), default=0)
        if head:
            body = self._placeholder(body[:head]) + body[head:]
        if tail and tail < len(body):
            body = body[:-tail] + self._placeholder(body[-tail:])
        return text[:start] + body + text[start + len(text.strip()) :]

    def _placeholder(self, text: str) -> str:
        if text not in self._by_text:
            character = next(self._free, None)
            if character is None:
                message = "the conversation uses up all private-use characters of Unicode"
                raise TemplateError(message, code="template_limit")
            self._by_text[text] = character
            self._by_character[character] = text
        return self._by_text[text]

    def _free_characters(self) -> Iterator[str]:
        for first, last in _PRIVATE_USE:
            for code_point in range(first, last + 1):
                if chr(code_point) not in self._used:
                    yield chr(code_point)


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours of one kind joined, empty pieces left out: the one way to write a text."""
    result: list[Piece] = []
    for piece in pieces:
        if result and result[-1].plain == piece.plain:
            result[-1] = Piece(result[-1].text + piece.text, piece.plain)
        elif piece.text:
            result.append(piece)
    return result


def plain_pieces(text: str, specials: tuple[str, ...]) -> list[Piece]:
    """Pieces of a text that the template did not write."""
    cut = re.split(f"({special_pattern(specials).pattern})", text)
    return merged(Piece(part, plain=at % 2 == 1) for at, part in enumerate(cut))


def after_prefix(pieces: Sequence[Piece], prefix: Sequence[Piece]) -> list[Piece] | None:
    """What follows `prefix` in `pieces`; None if they do not begin with it."""
    if not prefix:
        return list(pieces)
    *whole, last = prefix
    n_whole = len(whole)
    if len(pieces) <= n_whole or list(pieces[:n_whole]) != whole:
        return None
    cut = pieces[n_whole]
    if cut.plain != last.plain or not cut.text.startswith(last.text):
        return None
    return merged([Piece(cut.text[len(last.text) :], cut.plain), *pieces[n_whole + 1 :]])


def _overlap(left: str, right: str) -> int:
    """Length of the longest proper end of `left` that begins `right`, short of all of either
    special; 0 if none."""
    for n in range(min(len(left), len(right)), 0, -1):
        if left.endswith(right[:n]):
            return n
    return 0


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
