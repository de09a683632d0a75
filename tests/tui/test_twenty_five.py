"""What users of terminal chats ask for most, one by one, in tmux with the packaged model."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tui.tmux import Tmux, is_missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(is_missing(), reason="tmux is not installed"),
    pytest.mark.timeout(900),
]

EDITOR = """import sys
path = sys.argv[-1]
text = open(path).read()
open(path, "w").write(text + " and some more from the editor")
"""
FIGURES = "tokens/s · first after"


@pytest.fixture
def window(tmp_path):
    (tmp_path / "editor.py").write_text(EDITOR)
    (tmp_path / "notes.md").write_text("The meeting is on Tuesday.\n")
    opened = Tmux(tmp_path)
    yield opened
    opened.close()


def send(window: Tmux, text: str) -> str:
    window.type(text)
    window.wait_for(text[-20:])
    return enter(window)


def enter(window: Tmux) -> str:
    """Send what is in the prompt, and wait for the end of the reply."""
    window.keys("Enter")
    window.wait_for("Write a message")
    return window.wait_until_over()


def command(window: Tmux, text: str, *shown: str) -> str:
    if text:
        window.type(text)
        window.wait_for(text[-20:])
    window.keys("Enter")
    return window.wait_for(*shown)


def written(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)
    return path.read_text()


def test_every_request(window, tmp_path):
    window.wait_for("Write a message", "ready")

    # 1: Enter sends, Ctrl+J makes a line, a paste never sends.
    window.type("How do I show")
    window.keys("C-j")
    window.type("the current date?")
    window.paste("\n\npasted one\npasted two\n")
    screen = window.wait_for("pasted two")
    assert FIGURES not in screen
    window.keys("Enter")
    window.wait_for(FIGURES)

    # 10: figures of every reply. 9: the meter.
    screen = window.wait_until_over()
    assert "tokens/s" in screen
    assert "reused" in screen
    assert "% of 512" in screen

    # 3 and 4: edit a turn, regenerate; nothing is destroyed.
    window.keys("C-r")
    window.wait_for("branch 2 of 2")
    window.wait_until_over()
    window.keys("M-Left")
    window.wait_for("branch 1 of 2")
    window.keys("M-Right")
    window.wait_for("branch 2 of 2")
    window.keys("Up")
    window.wait_for("a new branch from here")
    window.type(" Please.")
    enter(window)
    window.wait_for("branch 3 of 3")

    # 3: the reply itself, and going on with it.
    window.keys("Up")
    window.wait_for("a new branch from here")
    window.keys("C-e")
    window.wait_for("the reply is yours")
    window.type(" And besides, ")
    window.keys("Enter")
    window.wait_for("rewritten by you", "And besides,")
    command(window, "/continue", FIGURES)
    window.wait_until_over()

    # 2: stop keeps what came, and the chat goes on. (The packaged model mostly ends before a key
    # reaches it; test_engine.py and test_chat_app.py stop replies for sure.)
    window.keys("C-n")
    window.wait_for("a new chat")
    window.type("Tell me a story.")
    window.keys("Enter")
    window.wait_for("Write a message")
    window.keys("Escape")
    time.sleep(0.5)  # or Esc and the next key are one
    window.wait_until_over()
    window.keys("C-u")

    # 6: copy the reply and a block of code, over OSC 52.
    send(window, "Hello")
    window.keys("C-y")
    window.wait_for("copied the reply")
    assert window.clipboard().strip() in window.screen().replace("\n", " ") + window.clipboard()
    assert window.clipboard().strip()
    window.keys("Up")
    window.wait_for("a new branch from here")
    window.keys("C-e")
    window.wait_for("the reply is yours")
    window.paste("\n```sh\nls -l\n```\n\n```sh\ndate\n```\n")
    window.keys("Enter")
    window.wait_for("rewritten by you", "ls -l")
    command(window, "/copy 1", "copied block 1 of 2")
    assert window.clipboard() == "ls -l"
    window.keys("M-y")
    window.wait_for("copied block 2 of 2")
    assert window.clipboard() == "date"

    # 7 and 8: Markdown is laid out; reading back is not disturbed.
    window.keys("C-Home")
    before = window.screen()
    window.keys("C-End")
    window.wait_for("date")
    assert "```" not in before + window.screen()

    # 11: a system prompt, kept as a persona, and taken in another chat.
    command(window, "/system You are a pirate.", "the system prompt of this chat")
    command(window, "/keep pirate", "/persona pirate takes it")
    window.keys("C-n")
    window.wait_for("a new chat")
    command(window, "/persona pirate", "pirate answers")
    command(window, "/system", "You are a pirate.")

    # 12: a file, with an estimate and completion.
    window.type("What does @no")
    window.keys("Tab")
    window.wait_for("@notes.md", "attached: notes.md")
    window.type("say?")
    enter(window)
    window.keys("C-Home")
    window.wait_for("▸ notes.md · 1 line")

    # 13: thinking is folded, and unfolded.
    window.keys("Up")
    window.wait_for("a new branch from here")
    window.keys("C-e")
    window.wait_for("the reply is yours")
    window.type("x")
    window.keys(*["Up"] * 30, "Home")
    window.type("<think>the user wants to know</think>")
    window.keys("Enter")
    window.wait_for("▸ thought · 5 words")
    window.keys("C-t")
    window.wait_for("▾ thought", "┊ the user wants to know", "Enter send")
    window.keys("C-t")
    window.wait_for("▸ thought", "Write a message")

    # 14: another model, and the chat stays.
    shutil.copy(demo(), tmp_path / "other.edge")
    command(window, "/model other.edge", "other.edge goes on with this chat", "notes.md")
    command(window, "/model missing.edge", "the model stays as it was")

    # 15: export.
    command(window, "/export md chat.md", "1 turn in chat.md")
    assert "You are a pirate." in written(tmp_path / "chat.md")
    command(window, "/export json chat.json 1", "1 turn in chat.json")
    assert len(json.loads(written(tmp_path / "chat.json"))["turns"]) == 1

    # 17: rename; the title stays.
    command(window, "/rename Pirates and notes", "renamed", "Pirates and notes")

    # 18: the editor.
    window.type("written here")
    window.keys("C-g")
    window.wait_for("written here and some more from the editor")
    enter(window)
    window.wait_for("Pirates and notes")

    # 19: keys of vi, and others.
    command(window, "/vim on", "keys of vi")
    window.type("one two")
    window.keys("Escape")
    window.wait_for("normal mode")
    window.type("0x")
    window.type("A three")
    window.wait_for("ne two three")
    window.keys("Escape")
    time.sleep(0.5)  # or Esc and the next key are one
    window.type("dd")
    window.type("i")
    command(window, "/vim off", "ordinary keys")

    # 20: themes.
    for theme in ("light", "colour-blind", "colour-blind-light", "terminal", "dark"):
        window.type(f"/theme {theme}")
        window.wait_for(f"/theme {theme}")
        command(window, "", "Write a message")

    # 24: tools are off; on, they are said.
    command(window, "/tools on", "the model may ask for current_time")
    command(window, "/tools off", "no tools")

    # 25: prompt history, help, commands, large pastes.
    window.keys("C-p")
    window.wait_for("written here and some more")
    window.keys("C-Down")
    command(window, "/nonsense", "no command /nonsense")
    window.keys("C-u")
    window.keys("C-c")
    window.paste("\n".join(f"line {n}" for n in range(500)))
    window.wait_for("line 499")
    window.keys("C-Home", "C-S-End")

    # 16: what was not sent is there after a crash. 5: search, resume.
    time.sleep(1.0)
    subprocess.run(["kill", "-9", str(window.pid())], check=True)
    window.wait_for_end()
    again = Tmux(tmp_path)
    try:
        again.wait_for("Write a message")
        again.keys("F2")
        again.wait_for("Chats", "Pirates and notes", "a draft")
        again.type("meeting Tuesday")
        again.wait_for("1 chat")
        again.keys("Enter")
        again.wait_for("line 499", "Pirates and notes")
        again.keys("C-q")
        again.wait_for_end()
    finally:
        again.close()
    database = sqlite3.connect(tmp_path / "chats" / "chats.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (draft,) = database.execute("SELECT text FROM drafts WHERE text LIKE '%line 499'").fetchone()
    assert draft.count("\n") >= 499
    database.close()


def test_a_chat_that_was_resumed_reads_its_kv_from_disk(tmp_path):
    first = Tmux(tmp_path)
    try:
        first.wait_for("Write a message", "ready")
        send(first, "How do I show the current date? " * 4)
        first.keys("C-q")
        first.wait_for_end()
    finally:
        first.close()
    argv = [sys.executable, "-m", "edgellm", "chat", "demo", "-n", "8", "--resume", "last"]
    again = Tmux(tmp_path, *argv)
    try:
        again.wait_for("current date?")
        send(again, "And the time?")
        again.wait_for("from disk")
    finally:
        again.close()


def test_as_a_pipe(tmp_path):
    """23."""
    argv = [sys.executable, "-m", "edgellm", "chat", "demo", "-n", "4", "--json"]
    run = subprocess.run(argv, input="Hello\n", capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["data"]["turns"][0]["message"] == "Hello"


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (140, 40)])
def test_every_screen_in_every_size(tmp_path, size):
    window = Tmux(tmp_path, size=size)
    try:
        window.wait_for("Write a message")
        for key, title in [
            ("F1", "Keys and commands"),
            ("F2", "Chats"),
            ("F3", "Models"),
            ("F4", "Settings"),
            ("F5", "Bench"),
            ("F6", "About"),
        ]:
            window.keys(key)
            window.wait_for(title)
        window.keys("F5")
        window.wait_for("Bench")
        window.keys("Enter")
        window.wait_for("medians of 5")
        window.keys("Escape")
        window.wait_for("Write a message")
    finally:
        window.close()


def demo() -> Path:
    from edgellm.locate import find

    return find("demo").path
