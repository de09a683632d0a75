"""What a chat template may cost: a budget of ticks and bytes, and filters that keep to it.

A template comes with the model file, so it is hostile. Every loop turn, call, filter and string
that it makes is charged here *before* it is made. Knows nothing of jinja2 or of chats.

One tick is about a quarter of a microsecond of work; looking at a string costs one more per 256
characters, making one per 512.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .errors import TemplateError

MAX_TICKS = 100_000
MAX_RESULT_CHARS = 1 << 20  # of one operator, method or filter
MAX_PRODUCED_BYTES = 8 << 20  # of all strings made in one rendering
MAX_OUTPUT_CHARS = 1 << 20  # of the rendered text
_MAX_DEPTH = 64
_MAX_INT_BITS = 4096
_MAX_STRIP_CHARS = 256
_MAX_WIDTH = 64
_FORMAT = re.compile(r"%(?:\([^)]*\))?[-+ #]*(?P<width>[\d*]*)(?:\.(?P<precision>[\d*]*))?")
_SIZED = (list, tuple, dict, set, frozenset)


class Budget:
    """What one compilation or rendering may still spend. `limited()` once means limited for good:
    a template cannot swallow the error and go on."""

    def __init__(self) -> None:
        self._ticks_left = MAX_TICKS
        self._bytes_left = MAX_PRODUCED_BYTES
        self.failure: TemplateError | None = None

    def limited(self, what: str) -> TemplateError:
        """The error for a limit that was met."""
        if self.failure is None:
            message = f"the chat template was stopped: {what}; a template needs far less"
            self.failure = TemplateError(message, code="template_limit")
        return self.failure

    def tick(self, n: int = 1) -> bool:
        """Spend `n` ticks; true, so that it can stand in a condition."""
        self._ticks_left -= n
        if self._ticks_left < 0:
            raise self.limited(f"more than {MAX_TICKS} steps")
        return True

    def check_chars(self, n_chars: int) -> None:
        """Refuse a string of this length before it exists."""
        if n_chars > MAX_RESULT_CHARS:
            raise self.limited(f"a text of {n_chars} characters, at most {MAX_RESULT_CHARS}")
        self.tick(1 + (n_chars >> 9))

    def made(self, value: Any) -> Any:
        """Charge a string that was made, and return it."""
        if isinstance(value, str):
            self.check_chars(len(value))
            self._bytes_left -= str.__sizeof__(value)
            if self._bytes_left < 0:
                raise self.limited(f"more than {MAX_PRODUCED_BYTES >> 20} MiB of text made")
        return value

    def measure(self, value: Any, depth: int = 0) -> int:
        """Charge a look at all of `value`; the characters it holds. Shared parts count each time,
        as they do for whoever prints or compares them."""
        if isinstance(value, str):
            self.tick(1 + (len(value) >> 8))
            return len(value)
        self.tick(2)
        if not isinstance(value, _SIZED):
            if isinstance(value, range):
                self.tick(len(value))
                return 8 * len(value)
            return 8
        if depth == _MAX_DEPTH:
            raise self.limited(f"data nested deeper than {_MAX_DEPTH}")
        total = 2
        for item in value:
            total += self.measure(item, depth + 1) + 4
            if isinstance(value, dict):
                total += self.measure(value[item], depth + 1) + 2
        return total

    def looked_at(self, value: Any) -> Any:
        """`value`, charged for a comparison or a search through it."""
        kind = type(value)
        if kind is str:
            if len(value) > 256:
                self.tick(len(value) >> 8)
        elif kind is not bool and kind is not int and value is not None:
            self.measure(value)
        return value

    def as_text(self, value: Any) -> str:
        """str(value), charged first."""
        if not isinstance(value, str):
            self.check_chars(self.measure(value))
        return str(value)

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        """`items`, a tick each."""
        for item in items:
            self.tick(2)
            yield item


def text_of(budget: Budget, parts: Iterable[Any], separator: str = "") -> str:
    """Join `parts` as text; refused before it is too long."""
    texts = []
    n_chars = 0
    for part in parts:
        texts.append(budget.as_text(part))
        n_chars += len(texts[-1]) + len(separator)
        budget.tick()
        if n_chars > MAX_RESULT_CHARS + len(separator):
            budget.check_chars(n_chars)
    budget.made(text := separator.join(texts))
    return text


def checked_operator(budget: Budget, operator: str, left: Any, right: Any) -> None:
    """Charge `left operator right`, and refuse what would be too large."""
    budget.tick()
    if operator == "**":
        if not _small(left, 64) or not isinstance(right, int | float) or abs(right) > 64:
            raise budget.limited("a power of large numbers")
    elif operator == "*":
        for text, times in ((left, right), (right, left)):
            if isinstance(text, str | list | tuple) and isinstance(times, int):
                n_items = len(text) * max(times, 0)
                budget.check_chars(n_items)
                if not isinstance(text, str):
                    budget.tick(n_items)
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() + right.bit_length()
            if bits > _MAX_INT_BITS:
                raise budget.limited(f"a number of {bits} bits, at most {_MAX_INT_BITS}")
    elif operator == "+":
        if isinstance(left, str) and isinstance(right, str):
            budget.check_chars(len(left) + len(right))
        elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
            budget.tick(len(left) + len(right))
    elif operator == "%" and isinstance(left, str):
        for found in _FORMAT.finditer(left):
            for digits in found.group("width", "precision"):
                if digits and ("*" in digits or len(digits) > 2):
                    raise budget.limited(f"a field as wide as {digits[:12]}")
        fields = left.count("%")
        budget.check_chars(len(left) + fields * (99 + budget.measure(right)))


def _small(value: Any, bits: int) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= bits)


def check_replace(budget: Budget, text: str, old: Any, new: Any) -> None:
    """Charge text.replace(old, new)."""
    old, new = str(old), str(new)
    n_found = text.count(old) if old else len(text) + 1
    budget.tick(n_found >> 4)
    budget.check_chars(len(text) + n_found * max(0, len(new) - len(old)))


def check_method(budget: Budget, text: str, name: str, args: tuple[Any, ...]) -> None:
    """Charge the string method `name`; what it makes is charged afterwards."""
    budget.tick(2 + (len(text) >> 8))
    if name == "replace":
        if len(args) >= 2:
            check_replace(budget, text, args[0], args[1])
    elif name in ("split", "rsplit", "splitlines"):
        separator = args[0] if args and name != "splitlines" else None
        by_text = isinstance(separator, str) and separator != ""
        budget.tick(text.count(str(separator)) if by_text else len(text) // 10)
    elif name in ("strip", "lstrip", "rstrip"):
        check_strip(budget, args[0] if args else None)


def check_strip(budget: Budget, chars: Any) -> None:
    """The cost of stripping is the product of both lengths."""
    if isinstance(chars, str) and len(chars) > _MAX_STRIP_CHARS:
        raise budget.limited(f"{len(chars)} characters to strip, at most {_MAX_STRIP_CHARS}")


def to_json(
    budget: Budget,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it for templates: no HTML escapes."""
    width = indent if isinstance(indent, int) else len(indent or "")
    widest = max((len(str(part)) for part in separators or ()), default=0)
    if width > _MAX_WIDTH or widest > _MAX_WIDTH:
        raise budget.limited(f"JSON indented by more than {_MAX_WIDTH}")
    n_chars = budget.measure(value)
    depth = _depth(value)
    budget.check_chars(n_chars + (n_chars // 4) * (max(width, 0) * depth + widest) // 4)
    return str(
        budget.made(
            json.dumps(
                value,
                ensure_ascii=ensure_ascii,
                indent=indent,
                separators=separators,
                sort_keys=sort_keys,
            )
        )
    )


def _depth(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0


def check_filter(budget: Budget, name: str, value: Any, args: tuple[Any, ...]) -> None:
    """Charge a filter before it runs; `args` are all its other arguments, named ones too."""
    budget.tick(4)
    budget.looked_at(value)
    if name in ("list", "reverse", "sort", "unique", "min", "max") and hasattr(value, "__len__"):
        budget.tick(3 * len(value))
    elif name in ("indent", "round", "truncate"):
        limit = MAX_RESULT_CHARS if name == "truncate" else _MAX_WIDTH
        for arg in args:
            if (isinstance(arg, int) and arg > limit) or (isinstance(arg, str) and len(arg) > 64):
                raise budget.limited(f"filter {name} with an argument over {limit}")
        if name == "indent" and isinstance(value, str):
            width = max((a if isinstance(a, int) else len(str(a)) for a in args), default=4)
            budget.check_chars(len(value) + (value.count("\n") + 1) * max(width, 4))
    elif name == "trim":
        check_strip(budget, args[0] if args else None)
    elif name == "replace" and len(args) >= 2:
        check_replace(budget, str(value), args[0], args[1])


Filter = Callable[..., Any]
