"""The screen as text, compared with what is kept in snapshots/. EDGELLM_UPDATE_SNAPSHOTS=1 writes
them anew; look at them before they are committed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.library import Library, Outcome
from edgellm.tui.messages import Call
from edgellm.tui.models_here import Here
from edgellm.tui.settings import Settings

from edgellm.errors import ContextOverflowError
from tui.screens import drive, say, shown, until

FOLDER = Path(__file__).parent / "snapshots"
SIZES = [(80, 24), (40, 12), (140, 40)]
REPLY = """Files are listed by **size** with `ls`:

1. open a shell,
2. write this:

```sh
ls -lS | head
```

| option | meaning |
|---|---|
| -l | one a line |
| -S | by size |

> See [the manual](http://example.invalid/ls).
"""
PIECES = [word + " " for word in REPLY.split(" ")]


def compare(name: str, size: tuple[int, int], text: str) -> None:
    path = FOLDER / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("EDGELLM_UPDATE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    assert text == path.read_text(encoding="utf-8").rstrip("\n")


@pytest.mark.parametrize("size", SIZES)
def test_a_chat(size):
    async def steps(app, pilot):
        await say(app, pilot, "How do I list files by size?\nShortly, please.")
        await pilot.press(*"Thanks", "ctrl+j", *"a lot")
        await pilot.pause()
        compare("chat", size, shown(app))

    drive(FakeEngine([PIECES], name="seed6m.edge", n_ctx=512), steps, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_the_beginning(size):
    async def steps(app, pilot):
        await until(pilot, lambda: "Write a message" in shown(app))
        compare("beginning", size, shown(app))

    drive(FakeEngine([PIECES], n_ctx=512), steps, size=size, greeting="The built-in demo.")


@pytest.mark.parametrize("size", SIZES)
def test_an_error(size):
    message = "90 prompt tokens + max_tokens 12 = 102, but the context of this model is 64 tokens"

    async def steps(app, pilot):
        await say(app, pilot, "first")
        await say(app, pilot, "a long one")
        compare("error", size, shown(app))

    drive(FakeEngine([["One."], ContextOverflowError(message)], n_ctx=64), steps, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_editing(size):
    async def steps(app, pilot):
        await say(app, pilot, "first")
        await pilot.press("up")
        await until(pilot, lambda: app.prompt.text == "first")
        compare("editing", size, shown(app))

    drive(FakeEngine([["One."]], dropped_turns=1), steps, size=size)


SHEETS = {
    "help": ("f1", "a new line"),
    "sessions": ("f2", "2 chats"),
    "models": ("f3", "big:8b"),
    "settings": ("f4", "Theme: dark"),
    "bench": ("f5", "rounds of"),
    "about": ("f6", "edgellm"),
}


@pytest.fixture
def library(monkeypatch):
    """Two chats, one of them with branches, at a time that is always the same."""
    times = iter(range(1_790_000_000_000, 1_800_000_000_000, 60_000))
    monkeypatch.setattr("edgellm.tui.library.library._now_ms", lambda: next(times))
    monkeypatch.setattr("edgellm.tui.screens.sessions.time.localtime", time.gmtime)
    opened = Library(None)
    for title, reply in (("How do I list files by size?", REPLY), ("A name for a boat", "Ada.")):
        chat = opened.new_chat()
        turn = opened.add_turn(chat, None, title)
        opened.end_turn(turn, Outcome(reply, None, "", "demo", "stop", "12 tokens", 0))
    opened.write_draft(chat, "and for a cat")
    return opened


@pytest.mark.parametrize("size", SIZES)
def test_sheets(size, library, monkeypatch):
    here = [Here("demo", "3.4 MiB", "fits with 512 tokens of context, 5.0 MiB", "no report")]
    here.append(Here("big:8b", "4812.0 MiB", "does not fit: 4900.2 MiB, 2048.0 MiB are free", ""))
    monkeypatch.setattr("edgellm.tui.screens.models._all_here", lambda: here)
    monkeypatch.setattr("edgellm.tui.screens.texts.platform.python_version", lambda: "3.11.7")
    monkeypatch.setattr("edgellm.tui.screens.texts.platform.system", lambda: "Linux")
    monkeypatch.setattr("edgellm.__version__", "0.0.0")

    async def steps(app, pilot):
        for name, (key, text) in SHEETS.items():
            await pilot.press(key)
            await until(pilot, lambda text=text: text in shown(app))
            if name == "bench":
                await pilot.press("enter")
                await until(pilot, lambda: "medians of 5" in shown(app))
            compare(name, size, shown(app))

    drive(FakeEngine([["x"]], name="demo", n_ctx=512), steps, size=size, library=library)


@pytest.mark.parametrize("size", SIZES)
def test_branches_and_thinking(size):
    replies = [["First."], ["<think>The user wants ", "another one.</think>\n\n", "Second."]]

    async def steps(app, pilot):
        app.chat.action_thinking()
        await say(app, pilot, "A word, please.")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: not app.busy and "Second." in shown(app))
        compare("branches", size, shown(app))

    drive(FakeEngine(replies, n_ctx=512), steps, size=size)


@pytest.mark.parametrize("size", SIZES)
def test_a_question_about_a_tool(size):
    calls = [[Call("read_file", {"path": "a.txt"})]]

    async def steps(app, pilot):
        app.prompt.put("What is in it?")
        await pilot.press("enter")
        await until(pilot, lambda: "Run it?" in shown(app))
        compare("question", size, shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Run it?" not in shown(app))

    settings = Settings(tools=True)
    drive(FakeEngine([["Looking."]], calls=calls), steps, size=size, settings=settings)


def test_the_snapshots_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 100_000
