"""What was said in a chat and what its prompts were made of, as data and as JSON.

The JSON is the note of a session file (docs/KV.md) and comes back from disk as hostile input:
every type is checked, and SessionError says which item is wrong. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, get_args

from .errors import FormatError, InvalidArgumentError, SessionError
from .placeholders import Piece, plain_data
from .results import FinishReason
from .strict_json import parse_json

_KIND = "edgellm.chat"
_VERSION = 1
_MADE_WITH = {"template", "system", "tools", "documents", "variables", "n_ctx", "policy"}
_KEYS = frozenset(_MADE_WITH | {"kind", "version", "started", "turns"})
_TURN_KEYS = frozenset(
    {"message", "reply", "reply_ids", "prompt_ids", "prompt", "finish_reason", "n_dropped", "exact"}
)


@dataclass(frozen=True)
class Turn:
    """A message and the reply to it.

    `prompt_ids + reply_ids` are the ids in the KV cache up to here; `n_dropped` is the number of
    oldest turns that this one no longer saw. `exact`: the ids spell `reply` (a stop string was not
    cut off).
    """

    message: dict[str, Any]
    reply: str
    reply_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    prompt: tuple[Piece, ...]
    finish_reason: FinishReason
    n_dropped: int
    exact: bool


@dataclass(frozen=True)
class Exchange:
    """A message and the reply to it, wherever they come from; for `Chat.recall()`. `reply_ids`: the
    tokens that spell the reply, as this model drew them; None: the text is tokenized."""

    message: Mapping[str, Any]
    reply: str
    reply_ids: tuple[int, ...] | None = None
    finish_reason: FinishReason = "stop"
    n_dropped: int = 0


@dataclass(frozen=True)
class Transcript:
    """All of a chat but its KV: what it was made with, and its turns.

    `template`: `template_digest()` of the chat template. `started`: the time that templates see.
    `n_ctx`: as it was given, None for all that the model has.
    """

    template: str
    system: str | None
    tools: list[Any] | None
    documents: list[Any] | None
    variables: dict[str, Any]
    n_ctx: int | None
    policy: str | None
    started: datetime
    turns: tuple[Turn, ...]

    def to_json(self) -> bytes:
        """InvalidArgumentError for what JSON cannot hold."""
        turns: list[dict[str, Any]] = []
        ids: tuple[int, ...] = ()
        pieces: tuple[Piece, ...] = ()
        for turn in self.turns:
            turns.append(
                {
                    "message": turn.message,
                    "reply": turn.reply,
                    "reply_ids": turn.reply_ids,
                    "prompt_ids": _after(ids, turn.prompt_ids),
                    "prompt": _pieces_after(pieces, turn.prompt),
                    "finish_reason": turn.finish_reason,
                    "n_dropped": turn.n_dropped,
                    "exact": turn.exact,
                }
            )
            ids, pieces = (*turn.prompt_ids, *turn.reply_ids), turn.prompt
        document = {
            "kind": _KIND,
            "version": _VERSION,
            "template": self.template,
            "system": self.system,
            "tools": self.tools,
            "documents": self.documents,
            "variables": self.variables,
            "n_ctx": self.n_ctx,
            "policy": self.policy,
            "started": self.started.isoformat(),
            "turns": turns,
        }
        try:
            text = json.dumps(plain_data(document, "the chat"), allow_nan=False, ensure_ascii=False)
            return text.encode("utf-8")
        except (TypeError, ValueError) as error:
            message = f"this chat cannot be saved: {error}"
            raise InvalidArgumentError(message, code="invalid_argument") from error

    @classmethod
    def from_json(cls, note: bytes, where: str) -> Transcript:
        """The transcript in `note`; SessionError with `where` in front of what is wrong."""
        try:
            document = parse_json(note, where)
        except FormatError as error:
            message = f"{error}; this is no chat that save() has written"
            raise SessionError(message, code="session_invalid") from error
        return _Reader(where).transcript(document)


def template_digest(source: str) -> str:
    """SHA-256 of a template's text, hex."""
    from hashlib import sha256  # not needed to import edgellm

    return sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def _after(before: Sequence[int], ids: Sequence[int]) -> list[Any]:
    """`ids` as [how many are those of `before`, the others]: prompts grow by what is new."""
    n_most = min(len(before), len(ids))
    n_same = next((n for n in range(n_most) if before[n] != ids[n]), n_most)
    return [n_same, list(ids[n_same:])]


def _pieces_after(before: Sequence[Piece], pieces: Sequence[Piece]) -> list[Any]:
    """`pieces` as [how many are those of `before`, characters of its next one that the first of
    the others begins with, the others without them]."""
    n_most = min(len(before), len(pieces))
    n_same = next((n for n in range(n_most) if before[n] != pieces[n]), n_most)
    rest = [[piece.text, piece.plain] for piece in pieces[n_same:]]
    n_chars = 0
    if n_same < n_most:
        begun, text = before[n_same].text, pieces[n_same].text
        n_short = min(len(begun), len(text))
        n_chars = next((n for n in range(n_short) if begun[n] != text[n]), n_short)
        rest[0][0] = text[n_chars:]
    return [n_same, n_chars, rest]


class _Reader:
    """Checks what a note holds, item by item."""

    def __init__(self, where: str) -> None:
        self._where = where

    def transcript(self, value: Any) -> Transcript:
        document = self._mapping(value, _KEYS, "the note")
        if document["kind"] != _KIND:
            self._fail("kind", f"{_KIND!r}")
        if document["version"] != _VERSION:
            self._fail("version", f"{_VERSION}, which this edgellm reads")
        try:
            started = datetime.fromisoformat(self._text(document["started"], "started"))
        except ValueError:
            self._fail("started", "a time")
        turns: list[Turn] = []
        for at, item in enumerate(self._list(document["turns"], "turns")):
            turns.append(self._turn(item, f"turns[{at}]", turns[-1] if turns else None))
            if turns[-1].n_dropped > at:
                self._fail(f"turns[{at}].n_dropped", "at most the number of turns before")
        n_ctx = document["n_ctx"]
        return Transcript(
            template=self._text(document["template"], "template"),
            system=self._optional(document["system"], self._text, "system"),
            tools=self._optional(document["tools"], self._list, "tools"),
            documents=self._optional(document["documents"], self._list, "documents"),
            variables=self._dict(document["variables"], "variables"),
            n_ctx=None if n_ctx is None else self._count(n_ctx, "n_ctx"),
            policy=self._optional(document["policy"], self._text, "policy"),
            started=started,
            turns=tuple(turns),
        )

    def _turn(self, value: Any, where: str, before: Turn | None) -> Turn:
        item = self._mapping(value, _TURN_KEYS, where)
        ids = (*before.prompt_ids, *before.reply_ids) if before else ()
        if item["finish_reason"] not in get_args(FinishReason):
            self._fail(f"{where}.finish_reason", f"one of {get_args(FinishReason)}")
        if not isinstance(item["exact"], bool):
            self._fail(f"{where}.exact", "true or false")
        message = self._dict(item["message"], f"{where}.message")
        self._text(message.get("role"), f"{where}.message.role")
        return Turn(
            message=message,
            reply=self._text(item["reply"], f"{where}.reply"),
            reply_ids=self._ids(item["reply_ids"], f"{where}.reply_ids"),
            prompt_ids=self._ids_after(ids, item["prompt_ids"], f"{where}.prompt_ids"),
            prompt=self._pieces(before.prompt if before else (), item["prompt"], f"{where}.prompt"),
            finish_reason=item["finish_reason"],
            n_dropped=self._count(item["n_dropped"], f"{where}.n_dropped"),
            exact=item["exact"],
        )

    def _ids(self, value: Any, where: str) -> tuple[int, ...]:
        ids = self._list(value, where)
        for at, token_id in enumerate(ids):
            if self._count(token_id, f"{where}[{at}]") >= 2**31:
                self._fail(f"{where}[{at}]", "a token id")
        return tuple(ids)

    def _ids_after(self, before: tuple[int, ...], value: Any, where: str) -> tuple[int, ...]:
        n_same, rest = self._items(value, 2, where)
        if self._count(n_same, f"{where}[0]") > len(before):
            self._fail(f"{where}[0]", f"at most {len(before)}")
        return (*before[:n_same], *self._ids(rest, f"{where}[1]"))

    def _pieces(self, before: tuple[Piece, ...], value: Any, where: str) -> tuple[Piece, ...]:
        n_same, n_chars, rest = self._items(value, 3, where)
        if self._count(n_same, f"{where}[0]") > len(before):
            self._fail(f"{where}[0]", f"at most {len(before)}")
        begun = before[n_same].text if n_same < len(before) else ""
        if self._count(n_chars, f"{where}[1]") > len(begun):
            self._fail(f"{where}[1]", f"at most {len(begun)}")
        pieces = []
        for at, item in enumerate(self._list(rest, f"{where}[2]")):
            text, plain = self._items(item, 2, f"{where}[2][{at}]")
            if not isinstance(plain, bool):
                self._fail(f"{where}[2][{at}][1]", "true or false")
            start = begun[:n_chars] if at == 0 else ""
            pieces.append(Piece(start + self._text(text, f"{where}[2][{at}][0]"), plain))
        return (*before[:n_same], *pieces)

    def _mapping(self, value: Any, keys: frozenset[str], where: str) -> dict[str, Any]:
        found = self._dict(value, where)
        if found.keys() != keys:
            self._fail(where, f"an object with the keys {', '.join(sorted(keys))}")
        return found

    def _dict(self, value: Any, where: str) -> dict[str, Any]:
        return value if isinstance(value, dict) else self._fail(where, "an object")

    def _list(self, value: Any, where: str) -> list[Any]:
        return value if isinstance(value, list) else self._fail(where, "a list")

    def _items(self, value: Any, n: int, where: str) -> list[Any]:
        items = self._list(value, where)
        return items if len(items) == n else self._fail(where, f"a list of {n} items")

    def _text(self, value: Any, where: str) -> str:
        return value if isinstance(value, str) else self._fail(where, "a text")

    def _count(self, value: Any, where: str) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        return self._fail(where, "a whole number, 0 or more")

    @staticmethod
    def _optional(value: Any, check: Any, where: str) -> Any:
        return None if value is None else check(value, where)

    def _fail(self, item: str, wanted: str) -> NoReturn:
        message = f"{self._where}: this is no saved chat: {item} must be {wanted}"
        raise SessionError(message, code="session_invalid")


def plain_sequence(value: Sequence[Mapping[str, Any]] | None, what: str) -> list[Any] | None:
    """`value` as plain data, None as None."""
    return None if value is None else list(plain_data(list(value), what))
