"""Keys, commands, drafts and files on the chat screen, with a scripted engine."""

from __future__ import annotations

import contextlib
import sys

import pytest
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.library import Library
from edgellm.tui.settings import Settings, read_settings

from tui.screens import command, drive, say, shown, until, words


def test_a_draft_of_a_chat_that_never_began_comes_back(tmp_path):
    async def first(app, pilot):
        await pilot.press(*"unsent")
        await until(pilot, lambda: [c.draft for c in app.library.chats()] == ["unsent"])

    drive(FakeEngine([["x"]]), first, library=Library(tmp_path))

    async def second(app, pilot):
        await until(pilot, lambda: app.prompt.text == "unsent")
        assert "did not send" in shown(app)

    drive(FakeEngine([["x"]]), second, library=Library(tmp_path))


def test_files_are_weighed_while_one_writes_and_sent_with_the_message(tmp_path):
    (tmp_path / "notes.md").write_text("three words here\n")
    engine = FakeEngine([["ok"]])

    async def steps(app, pilot):
        await pilot.press(*"Sum up @no", "tab")
        assert app.prompt.text == "Sum up @notes.md "
        await until(pilot, lambda: "attached: notes.md 3 tokens" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: not app.busy and engine.requests)
        assert "▸ notes.md · 1 line" in shown(app)
        assert "three words" not in shown(app)
        (tmp_path / "bad").write_bytes(b"\xff")
        await command(app, pilot, "look: @bad")
        assert "not UTF-8" in words(app)
        assert app.prompt.text == "look: @bad"

    drive(engine, steps, folder=tmp_path)
    assert "three words here" in engine.requests[0].message
    assert len(engine.requests) == 1


def test_personas_and_the_system_prompt():
    engine = FakeEngine([["Arr."]])

    async def steps(app, pilot):
        await command(app, pilot, "/keep pirate")
        assert "no system prompt to keep" in words(app)
        app.prompt.put("")
        await command(app, pilot, "/system You are a pirate.")
        await command(app, pilot, "/keep pirate")
        await command(app, pilot, "/new")
        await command(app, pilot, "/persona")
        assert "pirate: You are a pirate." in words(app)
        await command(app, pilot, "/persona pirate")
        await say(app, pilot, "a")

    drive(engine, steps)
    assert engine.requests[0].system == "You are a pirate."


def test_keys_are_rebound_and_settings_written_down(tmp_path):
    engine = FakeEngine([["one"], ["two"]])
    path = tmp_path / "chat.toml"

    async def steps(app, pilot):
        await say(app, pilot, "a")
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert len(engine.requests) == 1
        await pilot.press("f9")
        await until(pilot, lambda: len(engine.requests) == 2 and not app.busy)
        await pilot.press("f4")
        await until(pilot, lambda: "Theme: dark" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Theme: light" in shown(app))

    drive(engine, steps, settings=Settings(keys={"again": "f9"}), settings_path=path)
    assert read_settings(path) == Settings(theme="light", keys={"again": "f9"})


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("0x", "ne two\nthree"),
        ("dd", "three"),
        ("wD", "one \nthree"),
        ("jAx", "one two\nthreex"),
        ("ox", "one two\nx\nthree"),
        ("Ox", "x\none two\nthree"),
        ("yyGp", "one two\nthreeone two\n"),
        ("ccx", "x\nthree"),
        ("Gix", "one two\nthreex"),
        ("$aX", "one twoX\nthree"),
        ("xu", "one two\nthree"),
        ("qzZ", "one two\nthree"),
    ],
)
def test_keys_of_vi(keys, text):
    async def steps(app, pilot):
        app.prompt.put("one two\nthree")
        await pilot.press("escape")
        for key in "gg" + keys:
            await pilot.press(key)
        await pilot.pause()
        assert app.prompt.text == text

    drive(FakeEngine([["x"]]), steps, settings=Settings(vim=True))


def test_what_was_sent_comes_back_and_the_draft_too():
    async def steps(app, pilot):
        await say(app, pilot, "one")
        await say(app, pilot, "two")
        await pilot.press(*"dra", "ctrl+p", "ctrl+p")
        assert app.prompt.text == "one"
        await pilot.press("ctrl+p", "ctrl+down", "ctrl+down")
        assert app.prompt.text == "dra"

    drive(FakeEngine([["x"]]), steps)


def test_commands_that_are_wrong_say_so_and_stay_in_the_prompt(tmp_path):
    async def steps(app, pilot):
        await command(app, pilot, "/hepl")
        assert "did you mean /help" in words(app)
        assert app.prompt.text == "/hepl"
        await command(app, pilot, "/edit 3")
        assert "no number of 1 to 0 messages" in words(app)
        app.prompt.put("")
        await command(app, pilot, "//etc is a folder")
        await until(pilot, lambda: not app.busy and "/etc is a folder" in shown(app))
        await command(app, pilot, "/export md a.md")
        await until(pilot, lambda: "1 turn in a.md" in shown(app))
        await command(app, pilot, "/export md a.md")
        assert "is there already" in words(app)

    drive(FakeEngine([["x"]]), steps, folder=tmp_path)


def test_the_editor_takes_the_text_and_gives_it_back(tmp_path, monkeypatch):
    script = tmp_path / "editor.py"
    script.write_text("import sys\nopen(sys.argv[1], 'a').write(' and more\\x1b[31m')\n")
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")

    async def steps(app, pilot):
        app.suspend = contextlib.nullcontext  # no terminal to hand over here; tmux has one
        app.prompt.put("text")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: app.prompt.text == "text and more\u241b[31m")
        monkeypatch.setenv("VISUAL", "no-such-program")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "no-such-program did not start" in shown(app))
        assert app.prompt.text == "text and more\u241b[31m"

    drive(FakeEngine([["x"]]), steps)


def test_what_is_typed_at_once_does_not_go_to_the_editor():
    """As by a paste that ends itself in its middle."""
    started = []

    async def steps(app, pilot):
        app.edited_outside = started.append
        await pilot.press("ctrl+g", "x", *":!id", "enter")
        await pilot.pause(0.5)
        assert started == []
        await pilot.press("ctrl+g")
        await until(pilot, lambda: started == [""])

    drive(FakeEngine([["ok"]]), steps)
