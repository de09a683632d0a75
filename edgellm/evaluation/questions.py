"""Golden sets: JSON lines, one question each, and the rules that say whether an answer is right.

    {"prompt": "2 + 2 =", "expected": "4", "rule": "contains", "tags": ["math"], "max_tokens": 8}
    {"messages": [{"role": "user", "content": "Name a prime."}], "expected": ["2", "3", "5"]}
    {"prompt": "The sky is", "choices": [" blue", " made of soup"], "expected": 0}

Rules: `exact` (the answer without outer white space), `contains`, `regex` (Python's, anywhere in
the answer), `number` (the last number in the answer, as GSM8K is scored) and `choice`, which asks
for no answer but for the probability of each choice. A file is whole or refused: a bad line is an
error that names it. Knows nothing of models.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn, cast, get_args

from ..errors import FormatError
from ..strict_json import Json, parse_json

Rule = Literal["exact", "contains", "regex", "number", "choice"]
DEFAULT_MAX_TOKENS = 64
_MAX_QUESTIONS, _MAX_LINE_BYTES, _MAX_CHOICES, _MAX_MAX_TOKENS = 1 << 17, 1 << 20, 256, 1 << 20
_MAX_ID_CHARS = 200
_MATCH_LIMIT_S = 2.0
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_KEYS = frozenset(
    ("id", "prompt", "messages", "expected", "rule", "choices", "tags", "max_tokens", "stop")
)


@dataclass(frozen=True)
class Question:
    """One line of a golden set. Either `prompt` or `messages` is given; `where` is file:line.

    expected: texts of which one must be given; for `choice` the text of the right choice, which
    is `choices[right_choice]`.
    """

    id: str
    where: str
    prompt: str | None
    messages: tuple[Mapping[str, Json], ...] | None
    rule: Rule
    expected: tuple[str, ...]
    choices: tuple[str, ...] = ()
    right_choice: int = 0
    tags: tuple[str, ...] = ()
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()

    @property
    def last_text(self) -> str:
        """What is asked, for reports: the prompt or the last message."""
        if self.prompt is not None:
            return self.prompt
        last = (self.messages or ({},))[-1].get("content")
        return last if isinstance(last, str) else ""


def read_questions(path: Path) -> list[Question]:
    """All questions of a file; FormatError, beginning with file:line, for the first bad line.

    Empty lines are skipped. Ids are the file's own or file:line, and no two are the same.
    """
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for where, line in _lines(path):
        question = _question(parse_json(line, where), where)
        if question.id in seen:
            _fail(where, f"id {question.id!r} is that of {seen[question.id]}")
        seen[question.id] = where
        questions.append(question)
        if len(questions) > _MAX_QUESTIONS:
            _fail(where, f"more than {_MAX_QUESTIONS} questions; cut the file into several")
    if not questions:
        raise FormatError(f"{path}: holds no question", "questions_invalid")
    return questions


def is_right(question: Question, answer: str) -> bool:
    """Whether a generated answer satisfies the question's rule (not for `choice`).

    FormatError if a pattern takes more than 2 s, where that can be measured: in the main thread of
    a POSIX system. Elsewhere Ctrl-C ends it.
    """
    match question.rule:
        case "exact":
            return answer.strip() in {text.strip() for text in question.expected}
        case "contains":
            return any(text in answer for text in question.expected)
        case "number":
            found = last_number(answer)
            return found is not None and found in map(last_number, question.expected)
        case "regex":
            with _time_limit(question):
                return any(re.search(pattern, answer) for pattern in question.expected)
        case "choice":
            raise AssertionError("choices are judged by their probabilities")


def last_number(text: str) -> Decimal | None:
    """The last number in a text, "1,234.50" as 1234.5; None if there is none."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """(file:line, the line) of every line that is not empty."""
    try:
        if path.exists() and not path.is_file():
            raise FormatError(f"{path}: is not a regular file", "file_unreadable")
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                where = f"{path}:{number}"
                if len(line) > _MAX_LINE_BYTES:
                    _fail(where, f"a line of more than {_MAX_LINE_BYTES >> 10} KiB")
                if line.strip():
                    yield where, line
    except OSError as error:
        message = f"{path}: cannot read these questions: {error.strerror}"
        raise FormatError(message, "file_unreadable") from error


def _question(value: Json, where: str) -> Question:
    if not isinstance(value, dict):
        _fail(where, "not a JSON object")
    if unknown := sorted(set(value) - _KEYS):
        _fail(where, f"unknown key {unknown[0]!r:.80}; known are {', '.join(sorted(_KEYS))}")
    prompt, messages = value.get("prompt"), value.get("messages")
    if (prompt is None) == (messages is None):
        _fail(where, "give either a prompt or messages")
    if prompt is not None and not isinstance(prompt, str):
        _fail(where, "prompt is not a text")
    choices = _texts(value, "choices", where)
    if "choices" in value and not 2 <= len(choices) <= _MAX_CHOICES:
        _fail(where, f"{len(choices)} choices; 2 to {_MAX_CHOICES} are possible")
    rule = _rule(value, where, has_choices=bool(choices))
    expected = _expected(value, rule, choices, where)
    max_tokens = value.get("max_tokens", DEFAULT_MAX_TOKENS)
    if type(max_tokens) is not int or not 1 <= max_tokens <= _MAX_MAX_TOKENS:
        _fail(where, f"max_tokens is not a whole number in 1..{_MAX_MAX_TOKENS}")
    return Question(
        id=_id(value, where),
        where=where,
        prompt=prompt,
        messages=None if messages is None else _messages(messages, where),
        rule=rule,
        expected=expected,
        choices=choices,
        right_choice=choices.index(expected[0]) if rule == "choice" else 0,
        tags=_texts(value, "tags", where),
        max_tokens=max_tokens,
        stop=_texts(value, "stop", where),
    )


def _rule(value: dict[str, Json], where: str, *, has_choices: bool) -> Rule:
    rule = value.get("rule", "choice" if has_choices else "exact")
    if rule not in get_args(Rule):
        _fail(where, f"rule {rule!r:.80} is none of {', '.join(get_args(Rule))}")
    if has_choices != (rule == "choice"):
        _fail(where, "choices and the rule choice go together")
    return cast(Rule, rule)


def _expected(
    value: dict[str, Json], rule: Rule, choices: tuple[str, ...], where: str
) -> tuple[str, ...]:
    given = value.get("expected")
    if rule == "choice":
        return (_right_choice(given, choices, where),)
    items = given if isinstance(given, list) else [given]
    if rule == "number":
        items = [_number_text(item) for item in items]
    texts = tuple(item for item in items if isinstance(item, str))
    if not texts or len(texts) != len(items):
        _fail(where, "expected is not a text or a list of texts")
    for text in texts:
        if rule == "number" and last_number(text) is None:
            _fail(where, f"expected {text!r:.80} holds no number")
        if rule == "regex":
            try:
                re.compile(text)
            except (re.error, RecursionError, OverflowError) as error:
                _fail(where, f"expected {text!r:.80} is no pattern: {error}")
        if rule in ("contains", "exact") and not text.strip():
            _fail(where, "expected is empty, which every answer or none satisfies")
    return texts


def _number_text(item: Json) -> Json:
    if isinstance(item, bool) or not isinstance(item, int | float):
        return item
    return format(Decimal(str(item)), "f")


def _right_choice(given: Json, choices: tuple[str, ...], where: str) -> str:
    if len(set(choices)) != len(choices) or "" in choices:
        _fail(where, "a choice is empty or stands there twice")
    if type(given) is int and 0 <= given < len(choices):
        return choices[given]
    if not isinstance(given, str) or given not in choices:
        _fail(where, f"expected must be a choice, or its place in 0..{len(choices) - 1}")
    return given


def _messages(value: Json, where: str) -> tuple[Mapping[str, Json], ...]:
    if not isinstance(value, list) or not value:
        _fail(where, "messages is not a list with something in it")
    found: list[Mapping[str, Json]] = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            _fail(where, "a message is not an object with a role")
        found.append(message)
    return tuple(found)


def _texts(value: dict[str, Json], key: str, where: str) -> tuple[str, ...]:
    items = value.get(key, [])
    texts = tuple(t for t in items if isinstance(t, str)) if isinstance(items, list) else ()
    if not isinstance(items, list) or len(texts) != len(items):
        _fail(where, f"{key} is not a list of texts")
    return texts


def _id(value: dict[str, Json], where: str) -> str:
    found = value.get("id", where)
    if type(found) is int:
        return str(found)
    if not isinstance(found, str) or not 0 < len(found) <= max(_MAX_ID_CHARS, len(where)):
        _fail(where, f"id is not a text of 1 to {_MAX_ID_CHARS} characters")
    return found


@contextmanager
def _time_limit(question: Question) -> Iterator[None]:
    """Python's patterns can take exponential time; its engine lets signals through."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        _fail(question.where, f"the pattern takes more than {_MATCH_LIMIT_S:.0f} s on an answer")

    before = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, _MATCH_LIMIT_S)  # the caller's own, or zeros
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _fail(where: str, what: str) -> NoReturn:
    raise FormatError(f"{where}: {what}", "questions_invalid")
