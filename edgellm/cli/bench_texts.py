"""Texts by kind for `edgellm bench --speculate`: a prompt and what a model is taken to write next.

Without a file they are made of what every installation of Python has: its sources and its manual.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import keyword
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError, InvalidArgumentError

KINDS = ("editing", "code", "structured", "prose", "random")
_MODULES = ("textwrap", "bisect", "heapq", "shlex", "fnmatch", "csv", "sched", "queue")
_TOPIC_CHARACTERS = 4000  # of a page of the manual, at least
_PROMPT_CHARACTERS = 4000
_RANDOM_IDS = 100  # of a prompt
_KEYS = {"kind", "prompt", "continuation"}


@dataclass(frozen=True)
class BenchText:
    """Texts, or ids where no tokenizer would give them back."""

    kind: str
    prompt: str | list[int]
    continuation: str | list[int]


def built_in(n_each: int, n_tokens: int, n_vocab: int) -> list[BenchText]:
    """At most `n_each` of each kind; ids of random ones are below `n_vocab`."""
    makers = {"editing": _editing, "code": _code, "structured": _structured, "prose": _prose}
    texts: list[BenchText] = []
    for kind, make in makers.items():
        pairs = make()
        texts += [BenchText(kind, *pair) for _, pair in zip(range(n_each), pairs, strict=False)]
    draw = random.Random(1)
    for _ in range(n_each):
        ids = [draw.randrange(n_vocab) for _ in range(_RANDOM_IDS + n_tokens)]
        texts.append(BenchText("random", ids[:_RANDOM_IDS], ids[_RANDOM_IDS:]))
    return texts


def from_file(path: Path) -> list[BenchText]:
    """JSON Lines of objects with "kind", "prompt" and "continuation"."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: {error}", code="file_unreadable") from None
    numbered = [(at, line) for at, line in enumerate(lines, 1) if line.strip()]
    texts = [_parsed(line, f"{path}, line {at}") for at, line in numbered]
    if not texts:
        message = f"{path}: no texts; write a JSON object with kind, prompt, continuation a line"
        raise InvalidArgumentError(message, code="invalid_argument")
    return texts


def renamed(source: str) -> str:
    """The file with its most used long name changed and a comment above each function."""
    names = Counter(
        name for name in re.findall(r"[A-Za-z_]{5,}", source) if not keyword.iskeyword(name)
    )
    name = names.most_common(1)[0][0]
    edited = re.sub(rf"\b{name}\b", f"{name}_value", source)
    return re.sub(r"(?m)^( *)def (\w+)", r"\1# Called by the tests as well.\n\1def \2", edited)


def _parsed(line: str, where: str) -> BenchText:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: {error}", code="json_syntax") from None
    is_text = isinstance(found, dict) and _KEYS <= found.keys()
    if not is_text or not all(isinstance(found[key], str) and found[key] for key in _KEYS):
        message = f"{where}: must be an object with texts as {', '.join(sorted(_KEYS))}, none empty"
        raise FormatError(message, code="json_type")
    return BenchText(found["kind"], found["prompt"], found["continuation"])


def _sources() -> Iterator[str]:
    for name in _MODULES:
        yield inspect.getsource(importlib.import_module(name))


def _editing() -> Iterator[tuple[str, str]]:
    for source in _sources():
        shown = source[:_PROMPT_CHARACTERS]
        yield (
            f"Rename the main variable and add comments:\n{shown}\n\nHere it is:\n",
            renamed(shown),
        )


def _code() -> Iterator[tuple[str, str]]:
    for source in _sources():
        cut = min(len(source) // 2, _PROMPT_CHARACTERS)
        yield source[:cut], source[cut:]


def _structured() -> Iterator[tuple[str, str]]:
    for source in _sources():
        text = json.dumps(list(_definitions(ast.parse(source))), indent=2)
        cut = min(len(text) // 3, _PROMPT_CHARACTERS)
        yield text[:cut], text[cut:]


def _definitions(module: ast.Module) -> Iterator[dict[str, Any]]:
    """What a tool would list of a module."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args]
            about = (ast.get_docstring(node) or "").split("\n")[0]
            parameters = [{"name": name, "required": True} for name in names]
            yield {
                "type": "function",
                "name": node.name,
                "description": about,
                "parameters": parameters,
                "line": node.lineno,
            }


def _prose() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        text = topics[name]
        if len(text) < _TOPIC_CHARACTERS:
            continue
        cut = min(len(text) // 2, _PROMPT_CHARACTERS)
        yield text[:cut], text[cut:]
