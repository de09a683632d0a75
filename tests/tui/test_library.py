"""The chats on disk: what is written stays, what is found, who may read it."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest
from edgellm.tui.library import Library, Outcome

from edgellm.errors import SessionError


@pytest.fixture
def library(tmp_path):
    opened = Library(tmp_path / "chats")
    yield opened
    opened.close()


def outcome(reply: str, ids: tuple[int, ...] | None = (1, 2)) -> Outcome:
    return Outcome(reply, ids, "root", "demo", "stop", "2 tokens", 0)


def say(library: Library, chat: int, message: str, reply: str, parent: int | None = None) -> int:
    turn = library.add_turn(chat, parent, message)
    library.end_turn(turn, outcome(reply))
    return turn


def test_a_turn_comes_back_as_it_was(library, tmp_path):
    chat = library.new_chat(system="Be short.", model="demo")
    first = say(library, chat, "Hello\nyou", "Hi \x1b[31m 你好 😀")
    second = library.add_turn(chat, first, "more")
    library.close()
    again = Library(tmp_path / "chats")
    info = again.chat(chat)
    assert (info.title, info.system, info.model, info.head) == (
        "Hello",
        "Be short.",
        "demo",
        second,
    )
    one, two = again.turns(chat)
    assert (one.message, one.reply, one.reply_ids) == ("Hello\nyou", "Hi \x1b[31m 你好 😀", (1, 2))
    assert (one.finish, one.figures, one.root) == ("stop", "2 tokens", "root")
    assert (two.parent, two.reply, two.finish) == (first, "", None)
    assert again.check() == "ok"
    again.close()


def test_branches_share_a_parent_and_go_with_it(library):
    chat = library.new_chat()
    root = say(library, chat, "a", "b")
    left = say(library, chat, "c", "d", root)
    right = say(library, chat, "e", "f", root)
    below = say(library, chat, "g", "h", right)
    assert [turn.parent for turn in library.turns(chat)] == [None, root, root, right]
    library.remove_turn(right)
    assert [turn.id for turn in library.turns(chat)] == [root, left]
    assert below != library.chat(chat).head == root


def test_a_title_of_the_users_is_never_replaced(library):
    chat = library.new_chat()
    turn = say(library, chat, "x" * 100, "b")
    assert library.chat(chat).title == "x" * 59 + "…"
    library.rename(chat, "mine")
    say(library, chat, "other", "b", turn)
    assert library.chat(chat).title == "mine"
    library.rename(chat, "")
    assert library.chat(chat).title == "x" * 59 + "…"


def test_a_reply_that_was_cut_off_is_there_as_far_as_it_was_written(library, tmp_path, monkeypatch):
    chat = library.new_chat()
    turn = library.add_turn(chat, None, "tell me")
    library.write_partial(turn, "once upon")
    assert library.turns(chat)[0].reply == "once upon"
    other = Library(tmp_path / "chats")  # another window does not take it from a living one
    assert other.turns(chat)[0].finish is None
    other.close()
    monkeypatch.setattr("edgellm.tui.library.library._STALE_MS", -60_000)
    later = Library(tmp_path / "chats")
    (kept,) = later.turns(chat)
    assert (kept.reply, kept.finish) == ("once upon", "cancelled")
    assert [found.turn for found in later.search("upon")] == [turn]
    later.close()


def test_drafts_stay_with_their_chat_until_it_is_sent(library):
    chat = library.new_chat()
    library.write_draft(chat, "half a tho")
    assert library.chat(chat).draft == "half a tho"
    assert [one.id for one in library.chats()] == [chat]
    library.add_turn(chat, None, "half a thought")
    assert library.chat(chat).draft == ""


def test_the_draft_of_a_chat_that_never_began_is_taken_over(library):
    chat = library.new_chat()
    library.write_draft(chat, "unsent")
    assert library.take_draft() == "unsent"
    assert library.take_draft() == ""
    with pytest.raises(SessionError, match="no chat"):
        library.chat(chat)


def test_an_empty_chat_goes_and_another_stays(library):
    empty, drafted = library.new_chat(), library.new_chat()
    library.write_draft(drafted, "x")
    library.drop_if_empty(empty)
    library.drop_if_empty(drafted)
    assert [one.id for one in library.chats()] == [drafted]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("capital", {"a"}),
        ("apit", {"a"}),  # a part of a word
        ("france", {"a"}),
        ("CAPITAL Paris", {"a"}),
        ("capital berlin", set()),
        ("京都", {"b"}),  # two characters
        ("東京都", {"b"}),
        ("naming", {"c"}),  # a title
        ('"', {"c"}),
        ('" OR 1=1 --', set()),
        ("NEAR(", set()),
        ("100%", {"c"}),
        ("%", {"c"}),
        ("_", set()),
        ("", set()),
        ("\0", set()),
    ],
)
def test_search(library, asked, found):
    names = {}
    for name, message, reply in [
        ("a", "What is the capital of France?", "Paris is."),
        ("b", "都市", "東京都 and 京都"),
        ("c", 'He said "no"', "100% sure"),
    ]:
        chat = library.new_chat()
        say(library, chat, message, reply)
        names[chat] = name
        if name == "c":
            library.rename(chat, "naming")
    assert {names[one.chat.id] for one in library.search(asked)} == found


def test_what_is_deleted_is_found_nowhere(library, tmp_path):
    chat = library.new_chat()
    say(library, chat, "the secret zebra", "of mine")
    library.delete(chat)
    assert library.search("zebra") == library.chats() == []
    library.close()
    assert all(b"zebra" not in path.read_bytes() for path in (tmp_path / "chats").iterdir())


def test_personas_and_messages(library):
    library.keep_persona("pirate", "Arr.")
    library.keep_persona("pirate", "Arrr.")
    library.keep_persona("bard", "Sing.")
    library.forget_persona("nobody")
    assert library.personas() == {"bard": "Sing.", "pirate": "Arrr."}
    chat = library.new_chat()
    for text in ("one", "two", "one"):
        library.add_turn(chat, None, text)
    library.add_turn(chat, None, "42", role="tool")
    assert library.messages() == ["two", "one"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are a POSIX matter")
def test_nobody_else_may_read_it(tmp_path):
    old = os.umask(0)
    try:
        library = Library(tmp_path / "made" / "chats")
        library.add_turn(library.new_chat(), None, "private")
        folder = tmp_path / "made" / "chats"
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(("chats.db", "chats.db-wal", "chats.db-shm"), 0o600)
    assert folder.stat().st_mode & 0o777 == 0o700
    library.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not a database at all, but long enough " * 50, "not a database"), (b"", None)],
)
def test_a_file_that_is_none_is_refused_and_stays(tmp_path, content, words):
    path = tmp_path / "chats.db"
    path.write_bytes(content)
    if words is None:
        Library(tmp_path).close()
        return
    with pytest.raises(SessionError, match=words) as refused:
        Library(tmp_path)
    assert "--no-history" in str(refused.value)
    assert path.read_bytes() == content


def test_a_later_version_is_refused(tmp_path):
    Library(tmp_path).close()
    db = sqlite3.connect(tmp_path / "chats.db")
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(SessionError, match="version 9") as refused:
        Library(tmp_path)
    assert refused.value.code == "session_mismatch"


def test_a_directory_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SessionError, match="cannot be read or written"):
        Library(tmp_path / "file" / "chats")


@pytest.mark.parametrize("stored", [b"[1, -2]", b"{}", b"[1.5]", b"\xff", b"[" * 9000, b"[true]"])
def test_ids_that_are_none_are_no_ids(library, tmp_path, stored):
    chat = library.new_chat()
    say(library, chat, "a", "b")
    db = sqlite3.connect(tmp_path / "chats" / "chats.db")
    db.execute("UPDATE turns SET reply_ids = ?", (stored,))
    db.commit()
    db.close()
    assert library.turns(chat)[0].reply_ids is None


def test_what_is_no_unicode_is_kept_as_far_as_it_is(library):
    chat = library.new_chat(system="\ud800", model="\ud800")
    library.set_system(chat, "\ud800")
    library.keep_persona("\ud800", "\ud800")
    turn = say(library, chat, "a\ud800b", "c\udfff\0d")
    library.write_partial(turn, "\ud800")
    library.write_draft(chat, "\ud800")
    library.rename(chat, "\ud800")
    assert library.turns(chat)[0].message == "a?b"
    assert library.search("\ud800a?b") == []


def test_two_windows_and_many_threads_write_at_once(library, tmp_path):
    other = Library(tmp_path / "chats")
    chat = library.new_chat()

    def write(opened: Library, name: str) -> None:
        for n in range(25):
            opened.write_draft(chat, f"{name} {n}")
            opened.add_turn(chat, None, f"{name} {n}")

    threads = [
        threading.Thread(target=write, args=(opened, f"{at}"))
        for at, opened in enumerate((library, other, library))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({turn.message for turn in library.turns(chat)}) == 75
    other.close()


def test_memory_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library = Library(None)
    say(library, library.new_chat(), "a", "b")
    assert not library.is_kept
    library.close()
    assert list(Path(tmp_path).iterdir()) == []
