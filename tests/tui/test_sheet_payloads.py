"""No text steers the terminal from the other screens: titles, drafts, names, errors, questions."""

from __future__ import annotations

import asyncio

import pytest
from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.library import Library, Outcome
from edgellm.tui.messages import Call
from edgellm.tui.models_here import Here
from edgellm.tui.settings import Settings
from edgellm.tui.tools import described

from edgellm.errors import FormatError
from tui.payloads import known_payloads
from tui.screens import Recorder, until, words
from tui.terminal_grammar import findings

COLUMNS, ROWS = 300, 100
KNOWN = known_payloads()
PART = 60


def filled(payloads) -> Library:
    library = Library(None)
    for at in range(0, len(payloads), 4):
        chat = library.new_chat(system="".join(payloads[at : at + 4]))
        turn = library.add_turn(chat, None, payloads[at])
        reply = "<think>" + payloads[at] + "</think>" + payloads[-at]
        figures = "".join(payloads[at : at + 2])
        library.end_turn(turn, Outcome(reply, None, "", payloads[at], "stop", figures, 0))
        library.rename(chat, "title " + "".join(payloads[at : at + 4]))
        library.write_draft(chat, payloads[at])
    library.keep_persona(payloads[0], payloads[1])
    return library


@pytest.mark.parametrize("start", range(0, len(KNOWN), PART))
def test_known_payloads_do_not_get_through_the_other_screens(start, monkeypatch):
    part = KNOWN[start : start + PART]
    library = filled(part)
    name = "".join(part[:12])
    here = [Here(one, one, one, one) for one in part]
    monkeypatch.setattr("edgellm.tui.screens.models._all_here", lambda: here)
    engine = FakeEngine([FormatError(name), ["x"]], name=name, details=name)
    calls = tuple(Call(one, {one: one}) for one in part[:3])

    async def run() -> str:
        app = ChatApp(
            engine, library=library, chat=1, greeting=name, settings=Settings(thinking=True)
        )
        app.driver_class = type("ThisRecorder", (Recorder,), {"written": []})
        async with app.run_test(headless=False, size=(COLUMNS, ROWS)) as pilot:
            for key in ("f2", "f3", "f4", "f6", "f1", "escape"):
                await pilot.press(key)
                await pilot.pause(0.05)
            for line in ("/persona", "/system", f"/{name[:30]}", f"/rename {name}", "send this"):
                app.prompt.put(line.replace("\n", " "))
                await pilot.press("enter")
                await pilot.pause()
            await until(pilot, lambda: not app.busy)
            app.chat.run_worker(app.chat.approve(calls))
            await until(pilot, lambda: "Run it?" in words(app))
            await pilot.press("n", "n", "n")
            await until(pilot, lambda: not app.busy and len(app.screen_stack) == 1)
        return "".join(app.driver_class.written)

    written = asyncio.run(run())
    assert findings(written, ROWS, COLUMNS) == []
    assert "title" in written


def test_a_call_is_asked_about_as_it_will_be_run():
    call = Call("read_file", {"path": 'a"b\x1b[2J\n'})
    assert described(call) == 'read_file("path": "a\\"b\\u001b[2J\\n")'
