"""The sqlite file: where it is, who may read it, its tables, and what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.errors import SessionError

VERSION = 1
FILE_NAME = "chats.db"
_WAIT_S = 5.0  # for another window of the chat that writes

# A turn is found by substrings of three characters and more, in any language: trigrams.
_TABLES = """
CREATE TABLE chats (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL DEFAULT '',
    is_named INTEGER NOT NULL DEFAULT 0,
    system TEXT,
    model TEXT NOT NULL DEFAULT '',
    head INTEGER,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX chats_by_time ON chats (updated_ms);
CREATE TABLE turns (
    id INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL REFERENCES chats ON DELETE CASCADE,
    parent INTEGER REFERENCES turns ON DELETE CASCADE,
    role TEXT NOT NULL,
    message TEXT NOT NULL,
    reply TEXT NOT NULL DEFAULT '',
    reply_ids BLOB,
    root TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    finish TEXT,
    figures TEXT NOT NULL DEFAULT '',
    n_dropped INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX turns_by_chat ON turns (chat);
CREATE INDEX turns_by_parent ON turns (parent);
CREATE TABLE partials (
    turn INTEGER PRIMARY KEY REFERENCES turns ON DELETE CASCADE,
    reply TEXT NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE drafts (
    chat INTEGER PRIMARY KEY REFERENCES chats ON DELETE CASCADE,
    text TEXT NOT NULL
) STRICT;
CREATE TABLE personas (
    name TEXT PRIMARY KEY,
    system TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE said USING fts5(
    message, reply, content='turns', content_rowid='id', tokenize='trigram'
);
CREATE TRIGGER turns_added AFTER INSERT ON turns BEGIN
    INSERT INTO said(rowid, message, reply) VALUES (new.id, new.message, new.reply);
END;
CREATE TRIGGER turns_removed AFTER DELETE ON turns BEGIN
    INSERT INTO said(said, rowid, message, reply) VALUES ('delete', old.id, old.message, old.reply);
END;
CREATE TRIGGER turns_changed AFTER UPDATE OF message, reply ON turns BEGIN
    INSERT INTO said(said, rowid, message, reply) VALUES ('delete', old.id, old.message, old.reply);
    INSERT INTO said(rowid, message, reply) VALUES (new.id, new.message, new.reply);
END;
"""


def default_directory() -> Path:
    """$EDGELLM_HOME/chats, else in the user's data directory ($XDG_DATA_HOME/edgellm/chats)."""
    home = os.environ.get("EDGELLM_HOME")
    if home:
        return Path(home).expanduser().absolute() / "chats"
    import platformdirs

    return platformdirs.user_data_path("edgellm", appauthor=False) / "chats"


def connect(directory: Path | None) -> sqlite3.Connection:
    """The library in `directory`, made if it is not there; None: in memory, gone at the end.
    SessionError: it cannot be opened, is damaged, or of another version."""
    where = ":memory:" if directory is None else str(directory / FILE_NAME)
    with explained(where):
        if directory is not None:
            _make_private(directory)
        connection = sqlite3.connect(
            where, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, where)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Failures of the file as SessionError: what, where, and what to do."""
    remedy = "move it away, or start with --no-history"
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        held = "; another program is using it" if "locked" in str(error) else ""
        message = f"{where}: the chats cannot be read or written: {error}{held}; {remedy}"
        raise SessionError(message, code="session_invalid") from error


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _make_private(directory: Path) -> None:
    """Nobody else reads it. sqlite gives its other files the permissions of this one."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / FILE_NAME
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    if os.name == "posix":
        os.chmod(path, 0o600)  # one that was there may have had others


def _prepare(connection: sqlite3.Connection, where: str) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    # What is deleted is overwritten: it was private.
    connection.execute("PRAGMA secure_delete = ON")
    with writing(connection):  # two windows may start at once
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _statements(_TABLES):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            message = (
                f"{where}: these chats are of version {version}, and this edgellm reads {VERSION}; "
                "install a newer edgellm, or set EDGELLM_HOME to another folder"
            )
            raise SessionError(message, code="session_mismatch")


def _statements(script: str) -> Iterator[str]:
    """One by one: executescript() would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
