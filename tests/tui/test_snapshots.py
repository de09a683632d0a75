"""The screen as text, compared with what is kept in snapshots/. EDGELLM_UPDATE_SNAPSHOTS=1 writes
them anew; look at them before they are committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from edgellm.tui.fake_engine import FakeEngine

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


def test_the_snapshots_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 100_000
