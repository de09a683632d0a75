"""`Library`: every question and every change there is."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.errors import SessionError

from .records import ChatInfo, Found, Outcome, Turn
from .schema import connect, explained, writing

_MAX_FOUND = 200
_MAX_SHOWN = 1000  # of the latest chats
_TRIGRAM = 3
_STALE_MS = 60_000  # a reply under way is written every half second
_TITLE_CHARACTERS = 60
_CHAT = """SELECT c.id, c.title, c.is_named, c.system, c.model, c.head, c.updated_ms,
    (SELECT count(*) FROM turns t WHERE t.chat = c.id), coalesce(d.text, '')
    FROM chats c LEFT JOIN drafts d ON d.chat = c.id"""
_TURN = """SELECT t.id, t.parent, t.role, t.message,
    CASE WHEN p.reply IS NULL THEN t.reply ELSE p.reply END,
    CASE WHEN p.reply IS NULL THEN t.reply_ids END, t.root, t.model, t.finish,
    t.figures, t.n_dropped FROM turns t LEFT JOIN partials p ON p.turn = t.id"""


class Library:
    """The chats in a directory; None: in memory. Any number of processes may have one open, and
    any thread may call. What `add_turn` and `end_turn` wrote outlasts a power failure; the rest
    outlasts the process. SessionError: the file is damaged, full, or held by somebody."""

    def __init__(self, directory: Path | None) -> None:
        self._lock = threading.RLock()
        self._where = "the chats in memory" if directory is None else str(directory)
        self._connection = connect(directory)
        self.is_kept = directory is not None
        with self._changing() as db:
            # Of programs that ended in a reply: what came is the reply.
            stale = "SELECT turn FROM partials WHERE updated_ms < ?"
            for (turn,) in db.execute(stale, (_now_ms() - _STALE_MS,)).fetchall():
                self._keep_partial(turn)

    def close(self) -> None:
        """Idempotent."""
        with self._lock, explained(self._where):
            self._connection.close()

    # --- chats --------------------------------------------------------------------------------

    def new_chat(self, *, system: str | None = None, model: str = "") -> int:
        """The id of a chat without turns."""
        with self._changing() as db:
            now = _now_ms()
            columns = "(system, model, created_ms, updated_ms) VALUES (?, ?, ?, ?)"
            given = _sound_all((system, model, now, now))
            cursor = db.execute(f"INSERT INTO chats {columns}", given)
            return int(cursor.lastrowid or 0)

    def chat(self, chat: int) -> ChatInfo:
        """SessionError: there is none."""
        rows = self._rows(f"{_CHAT} WHERE c.id = ?", chat)
        if not rows:
            message = f"there is no chat {chat}; it was deleted"
            raise SessionError(message, code="session_invalid")
        return _chat(rows[0])

    def chats(self) -> list[ChatInfo]:
        """Those with a turn or a draft, the latest first, at most 1,000."""
        said = "EXISTS (SELECT 1 FROM turns t WHERE t.chat = c.id)"
        where = f"WHERE {said} OR d.text <> '' ORDER BY c.updated_ms DESC, c.id DESC LIMIT ?"
        return [_chat(row) for row in self._rows(f"{_CHAT} {where}", _MAX_SHOWN)]

    def rename(self, chat: int, title: str) -> None:
        """By the user: no other title replaces it. An empty one gives the automatic one back."""
        with self._changing() as db:
            db.execute(
                "UPDATE chats SET title = ?, is_named = ? WHERE id = ?",
                (_sound(title), title != "", chat),
            )
            if not title:
                self._title(chat)

    def set_system(self, chat: int, system: str | None) -> None:
        """The system prompt of a chat."""
        self._change("UPDATE chats SET system = ? WHERE id = ?", system, chat)

    def set_model(self, chat: int, model: str) -> None:
        """The name of the model that the chat goes on with."""
        self._change("UPDATE chats SET model = ? WHERE id = ?", model, chat)

    def set_head(self, chat: int, head: int | None) -> None:
        """The end of the branch that is looked at."""
        self._change("UPDATE chats SET head = ? WHERE id = ?", head, chat)

    def delete(self, chat: int) -> None:
        """With everything that was said in it; the bytes are overwritten."""
        self._change("DELETE FROM chats WHERE id = ?", chat)
        self._change("INSERT INTO said(said) VALUES ('optimize')")  # its words go from the index
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- turns --------------------------------------------------------------------------------

    def turns(self, chat: int) -> list[Turn]:
        """All branches, parents before children. Of a reply that was cut off, what was written."""
        return [_turn(row) for row in self._rows(f"{_TURN} WHERE t.chat = ? ORDER BY t.id", chat)]

    def add_turn(self, chat: int, parent: int | None, message: str, role: str = "user") -> int:
        """A message that was sent, now the head; its draft is gone. Its id. On disk before this
        returns."""
        with self._changing(synced=True) as db:
            now = _now_ms()
            columns = "(chat, parent, role, message, created_ms) VALUES (?, ?, ?, ?, ?)"
            cursor = db.execute(
                f"INSERT INTO turns {columns}", (chat, parent, role, _sound(message), now)
            )
            turn = int(cursor.lastrowid or 0)
            db.execute("UPDATE chats SET head = ?, updated_ms = ? WHERE id = ?", (turn, now, chat))
            db.execute("DELETE FROM drafts WHERE chat = ?", (chat,))
            self._title(chat)
            return turn

    def write_partial(self, turn: int, reply: str) -> None:
        """The reply as far as it has come, so that little is lost if the program ends in it."""
        sql = "INSERT OR REPLACE INTO partials (turn, reply, updated_ms) VALUES (?, ?, ?)"
        self._change(sql, turn, reply, _now_ms())

    def end_turn(self, turn: int, outcome: Outcome) -> None:
        """The reply is over. On disk before this returns."""
        ids = outcome.reply_ids
        given = (
            outcome.reply,
            None if ids is None else json.dumps(ids).encode(),
            *(outcome.root, outcome.model, outcome.finish, outcome.figures, outcome.n_dropped),
        )
        with self._changing(synced=True) as db:
            db.execute(
                "UPDATE turns SET reply = ?, reply_ids = ?, root = ?, model = ?, finish = ?, "
                "figures = ?, n_dropped = ? WHERE id = ?",
                _sound_all((*given, turn)),
            )
            db.execute("DELETE FROM partials WHERE turn = ?", (turn,))
            touched = "UPDATE chats SET updated_ms = ? WHERE id = (SELECT chat FROM turns "
            db.execute(touched + "WHERE id = ?)", (_now_ms(), turn))

    def remove_turn(self, turn: int) -> None:
        """With all that followed it; its parent is the head, where it was below."""
        with self._changing() as db:
            row = db.execute("SELECT chat, parent FROM turns WHERE id = ?", (turn,)).fetchone()
            if row is None:
                return
            db.execute("DELETE FROM turns WHERE id = ?", (turn,))
            missing = "head NOT IN (SELECT id FROM turns)"
            db.execute(f"UPDATE chats SET head = ? WHERE id = ? AND {missing}", (row[1], row[0]))

    # --- drafts, personas, history ------------------------------------------------------------

    def write_draft(self, chat: int, text: str) -> None:
        """What is written and not sent."""
        if text:
            self._change("INSERT OR REPLACE INTO drafts (chat, text) VALUES (?, ?)", chat, text)
        else:
            self._change("DELETE FROM drafts WHERE chat = ?", chat)

    def take_draft(self) -> str:
        """The latest draft of a chat without turns, which goes; empty if there is none."""
        with self._changing() as db:
            said = "SELECT 1 FROM turns t WHERE t.chat = d.chat"
            row = db.execute(
                f"SELECT d.chat, d.text FROM drafts d WHERE NOT EXISTS ({said}) "
                "ORDER BY d.chat DESC LIMIT 1"
            ).fetchone()
            if row is None:
                return ""
            db.execute("DELETE FROM chats WHERE id = ?", (row[0],))
            return str(row[1])

    def drop_if_empty(self, chat: int) -> None:
        """A chat with neither turns nor a draft goes."""
        said = "EXISTS (SELECT 1 FROM turns WHERE chat = ?1)"
        drafted = "EXISTS (SELECT 1 FROM drafts WHERE chat = ?1)"
        self._change(f"DELETE FROM chats WHERE id = ?1 AND NOT {said} AND NOT {drafted}", chat)

    def messages(self, n_most: int = 200) -> list[str]:
        """The latest messages of all chats, each once, the oldest first."""
        sql = "SELECT message FROM turns WHERE role = 'user' GROUP BY message "
        rows = self._rows(sql + "ORDER BY max(id) DESC LIMIT ?", n_most)
        return [str(row[0]) for row in reversed(rows)]

    def personas(self) -> dict[str, str]:
        """System prompts by name."""
        return {row[0]: row[1] for row in self._rows("SELECT * FROM personas ORDER BY name")}

    def keep_persona(self, name: str, system: str) -> None:
        """In the place of one of that name."""
        self._change("INSERT OR REPLACE INTO personas (name, system) VALUES (?, ?)", name, system)

    def forget_persona(self, name: str) -> None:
        """Nothing happens if there is none."""
        self._change("DELETE FROM personas WHERE name = ?", name)

    # --- search -------------------------------------------------------------------------------

    def search(self, text: str) -> list[Found]:
        """Chats that have every word of `text` in their title or in one turn, the latest first."""
        words = [word for word in text.replace("\0", " ").split() if word]
        if not words:
            return []
        by_chat: dict[int, tuple[int | None, str]] = {}
        titled = " AND ".join("title LIKE ? ESCAPE '\\'" for _ in words)
        for (chat,) in self._rows(f"SELECT id FROM chats WHERE {titled}", *map(_like, words)):
            by_chat[chat] = (None, "")
        for chat, turn, excerpt in self._search_turns(words):
            if by_chat.get(chat, (None, ""))[1] == "":
                by_chat[chat] = (turn, excerpt)
        found = [Found(self.chat(chat), *where) for chat, where in by_chat.items()]
        return sorted(found, key=lambda one: one.chat.updated_ms, reverse=True)

    def _search_turns(self, words: list[str]) -> list[tuple[int, int, str]]:
        """(chat, turn, excerpt), the latest turn of a chat first."""
        if all(len(word) >= _TRIGRAM for word in words):
            asked = " AND ".join('"' + word.replace('"', '""') + '"' for word in words)
            sql = """SELECT t.chat, t.id, snippet(said, -1, '', '', '…', 24) FROM said
                JOIN turns t ON t.id = said.rowid WHERE said MATCH ? ORDER BY t.id DESC LIMIT ?"""
            return self._rows(sql, asked, _MAX_FOUND)
        both = " AND ".join("(message || ' ' || reply) LIKE ? ESCAPE '\\'" for _ in words)
        sql = f"SELECT chat, id, message || ' ' || reply FROM turns WHERE {both}"
        rows = self._rows(f"{sql} ORDER BY id DESC LIMIT ?", *map(_like, words), _MAX_FOUND)
        return [(chat, turn, _around(text, words[0])) for chat, turn, text in rows]

    # --- below --------------------------------------------------------------------------------

    def check(self) -> str:
        """ "ok", or what sqlite finds wrong with the file."""
        return str(self._rows("PRAGMA integrity_check")[0][0])

    def _title(self, chat: int) -> None:
        """The first line of the first message, unless there is a title."""
        sql = "SELECT message FROM turns WHERE chat = ? AND role = 'user' ORDER BY id LIMIT 1"
        row = self._connection.execute(sql, (chat,)).fetchone()
        if row is not None:
            line = next((line.strip() for line in row[0].splitlines() if line.strip()), "")
            title = line if len(line) <= _TITLE_CHARACTERS else line[: _TITLE_CHARACTERS - 1] + "…"
            unnamed = "id = ? AND title = '' AND is_named = 0"
            self._connection.execute(f"UPDATE chats SET title = ? WHERE {unnamed}", (title, chat))

    def _keep_partial(self, turn: int) -> None:
        db = self._connection
        partial = "(SELECT reply FROM partials WHERE turn = ?1)"
        db.execute(
            f"UPDATE turns SET reply = {partial}, reply_ids = NULL, finish = 'cancelled' "
            "WHERE id = ?1",
            (turn,),
        )
        db.execute("DELETE FROM partials WHERE turn = ?", (turn,))

    def _rows(self, sql: str, *given: Any) -> list[Any]:
        with self._lock, explained(self._where):
            return self._connection.execute(sql, _sound_all(given)).fetchall()

    def _change(self, sql: str, *given: Any) -> None:
        with self._changing() as db:
            db.execute(sql, _sound_all(given))

    @contextmanager
    def _changing(self, *, synced: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self._where):
            db = self._connection
            db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            with writing(db):
                yield db


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _chat(row: tuple[Any, ...]) -> ChatInfo:
    id, title, is_named, system, model, head, updated_ms, n_turns, draft = row
    return ChatInfo(id, title, bool(is_named), system, model, head, updated_ms, n_turns, draft)


def _turn(row: tuple[Any, ...]) -> Turn:
    id, parent, role, message, reply, ids, root, model, finish, figures, n_dropped = row
    texts = role, message, reply
    return Turn(id, parent, *texts, _ids(ids), root, model, finish, figures, n_dropped)


def _ids(stored: bytes | None) -> tuple[int, ...] | None:
    """A text that is none costs no more than reading the reply again."""
    try:
        ids = None if stored is None else json.loads(stored)
    except (ValueError, RecursionError):
        return None
    is_sound = isinstance(ids, list) and all(type(i) is int and 0 <= i < 2**31 for i in ids)
    return tuple(ids) if ids is not None and is_sound else None


def _sound(text: str) -> str:
    """What UTF-8 can hold: sqlite takes nothing else."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _sound_all(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_sound(one) if isinstance(one, str) else one for one in given)


def _like(word: str) -> str:
    for special in ("\\", "%", "_"):
        word = word.replace(special, "\\" + special)
    return f"%{word}%"


def _around(text: str, word: str) -> str:
    at = max(0, text.lower().find(word.lower()))
    start = max(0, at - 24)
    return ("…" if start else "") + text[start : at + 48]
