"""The screen under a real pseudo-terminal, with Textual's real driver."""

from __future__ import annotations

import json
import os

import pytest

from tui.payloads import known_payloads
from tui.terminal import Terminal
from tui.terminal_grammar import findings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are a POSIX matter")

ROWS, COLUMNS = 60, 120


def test_known_payloads_do_not_get_through_the_real_driver(tmp_path):
    known = known_payloads()
    replies = [[*"\n".join(known[at : at + 50])] for at in range(0, len(known), 50)]
    greeting = " ".join(known[:40])
    engine = {"name": known[0] + known[9], "details": "".join(known[300:310]), "n_ctx": 100_000}
    terminal = Terminal(
        tmp_path,
        (ROWS, COLUMNS),
        replies=replies,
        engine=engine,
        greeting=greeting,
        mark_every=1000,
    )
    terminal.wait_for("rite a message")
    for at in range(len(replies)):
        text = " ".join(known[at * 50 : at * 50 + 50])
        # One bracketed paste, end marker included, and Enter.
        terminal.type(b"\x1b[200~" + text.encode(errors="ignore") + b"\x1b[201~")
        terminal.type(b"\r")
        terminal.wait_for("first after", at + 1)
    terminal.type(b"\x11")
    assert terminal.end() == 0
    written = terminal.written.decode()
    assert findings(written, ROWS, COLUMNS) == []
    assert written.count("\u241b") > 200
    assert written.endswith("\x1b[?1004l") or "\x1b[?1049l" in written[-200:]


def test_what_is_typed_behind_enter_is_neither_sent_nor_lost(tmp_path):
    """All of it in one write: the program reads it in one piece."""
    replies = [["aye"], ["bee"]]
    engine = {"n_ctx": 512}
    terminal = Terminal(
        tmp_path, (ROWS, COLUMNS), replies=replies, engine=engine, greeting=None, mark_every=1000
    )
    terminal.type(b"before it is there, ")
    terminal.wait_for("Enter send")
    terminal.press(b"one\rtwo")
    terminal.wait_for("first after")  # by then it is over
    terminal.press(b"\rthree")
    terminal.wait_for("bee")
    terminal.press(b", four\x11")
    assert terminal.end() == 0
    written = json.loads((tmp_path / "written.json").read_text())
    assert written == {"asked": ["before it is there, one", "two"], "draft": "three, four"}


def test_a_chat_ends_with_its_terminal(tmp_path):
    given = {"replies": [["hi"]], "engine": {"n_ctx": 512}, "greeting": None, "mark_every": 1000}
    terminal = Terminal(tmp_path, (ROWS, COLUMNS), **given)
    terminal.wait_for("rite a message")
    assert terminal.leave() == 0
