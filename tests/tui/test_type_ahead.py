"""Keys that come faster than they are handled: each does what it would do alone."""

from __future__ import annotations

import pytest
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.library import Library
from edgellm.tui.screens.sessions import Sessions
from edgellm.tui.settings import Settings
from textual import events
from textual.widgets import Input

from tui.screens import drive, say, until

LONG = [["word "] * 100_000]


def rush(app, *keys):
    """All at once, as they come when a program types or a terminal was slow."""
    for key in keys:
        character = " " if key == "space" else key if len(key) == 1 else None
        event = events.Key(key, character)
        event.set_sender(app)
        app._driver.send_message(event)


def test_letters_behind_enter_stay_in_the_prompt():
    engine = FakeEngine([["ok"]])

    async def steps(app, pilot):
        rush(app, *"one", "enter", *"two")
        await until(pilot, lambda: not app.busy and app.prompt.text == "two")
        rush(app, "enter", *"three")
        await until(pilot, lambda: not app.busy and app.prompt.text == "three")

    drive(engine, steps)
    assert [ask.message for ask in engine.requests] == ["one", "two"]


def test_a_second_enter_while_a_reply_comes_keeps_all_that_was_typed():
    engine = FakeEngine(LONG, delay_s=0.01, n_ctx=10**6)

    async def steps(app, pilot):
        rush(app, *"one", "enter", *"two", "enter", *"three")
        await until(pilot, lambda: app.prompt.text == "twothree")
        await pilot.press("escape")
        await until(pilot, lambda: not app.busy)
        assert app.prompt.text.endswith("twothree")

    drive(engine, steps)
    assert [ask.message for ask in engine.requests] == ["one"]


def test_letters_behind_a_command_stay_in_the_prompt():
    async def steps(app, pilot):
        rush(app, *"/tools", "space", *"on", "enter", *"next")
        await until(pilot, lambda: app.settings.tools and app.prompt.text == "next")

    drive(FakeEngine([["ok"]]), steps)


def test_letters_behind_a_key_that_fetches_a_message_are_added_to_it():
    async def steps(app, pilot):
        await say(app, pilot, "one")
        rush(app, "up", "x")
        await until(pilot, lambda: app.prompt.text == "onex")
        assert app.chat.editing.turn is not None

    drive(FakeEngine([["ok"]]), steps)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (("a", "b", "escape", "0", "x"), "b"),
        (("a", "b", "escape", "d", "d", "i", "c"), "c"),
        (("a", "ctrl+p", "b"), "oneb"),
        (("a", "ctrl+p", "ctrl+down", "b"), "ab"),
    ],
)
def test_keys_of_the_screen_wait_for_the_letters_before_them(keys, text):
    async def steps(app, pilot):
        await say(app, pilot, "one")
        rush(app, *keys)
        await until(pilot, lambda: app.prompt.text == text)

    drive(FakeEngine([["ok"]]), steps, settings=Settings(vim=True))


def test_letters_behind_a_key_that_opens_a_sheet_are_for_the_sheet():
    async def steps(app, pilot):
        rush(app, *"draft", "f2", *"words")
        await until(pilot, lambda: isinstance(app.screen, Sessions))
        await until(pilot, lambda: app.screen.query_one(Input).value == "words")
        assert app.prompt.text == "draft"

    drive(FakeEngine([["ok"]]), steps)


@pytest.mark.parametrize("key", ["ctrl+n", "ctrl+q"])
def test_letters_before_a_key_that_leaves_the_chat_are_its_draft(tmp_path, key):
    async def steps(app, pilot):
        first = app.chat.conversation
        rush(app, *"unsent", key)
        await until(pilot, lambda: not app.is_running or app.chat.conversation is not first)

    library = Library(tmp_path)
    drive(FakeEngine([["ok"]]), steps, library=library)
    kept = Library(tmp_path)
    assert [chat.draft for chat in kept.chats()] == ["unsent"]
    kept.close()
