"""Branches, chats, tools, models and thinking on the chat screen, with a scripted engine."""

from __future__ import annotations

import base64

import pytest
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.library import Library, Outcome
from edgellm.tui.messages import Call

from edgellm.errors import ContextOverflowError
from tui.screens import command, drive, say, shown, until, words


def outcome(reply):
    return Outcome(reply, (1,), "fake", "fake", "stop", "figures", 0)


def test_branches_are_kept_and_looked_at():
    engine = FakeEngine([["first"], ["second"], ["third"], ["fourth"]])

    async def steps(app, pilot):
        await say(app, pilot, "a")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: not app.busy)
        await pilot.press("alt+left")
        await until(pilot, lambda: "first" in shown(app).replace("first after", ""))
        assert "branch 1 of 2" in shown(app)
        await say(app, pilot, "b")
        await pilot.press("alt+right")
        await until(pilot, lambda: "second" in shown(app))
        assert "third" not in shown(app)
        await command(app, pilot, "/branch 1")
        assert "third" in shown(app)
        await say(app, pilot, "c")

    drive(engine, steps)
    assert [one.reply for one in engine.requests[-1].past] == ["first", "third"]
    assert engine.requests[1].attempt == 1


def test_a_reply_is_rewritten_and_gone_on_with():
    engine = FakeEngine([["one"], [" more"]])

    async def steps(app, pilot):
        await say(app, pilot, "a")
        await pilot.press("up")
        await until(pilot, lambda: app.prompt.text == "a")
        await pilot.press("ctrl+e")
        await until(pilot, lambda: app.prompt.text == "one")
        await pilot.press(*" mine", "enter")
        await until(pilot, lambda: "rewritten by you" in shown(app))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: len(engine.requests) == 2 and not app.busy)
        assert "one mine more" in shown(app)

    drive(engine, steps)
    assert engine.requests[1].begun.reply == "one mine"
    assert engine.requests[1].begun.reply_ids is None


def test_up_goes_through_the_messages_and_an_edit_begins_a_branch_there():
    engine = FakeEngine([["one"], ["two"], ["three"]])

    async def steps(app, pilot):
        await say(app, pilot, "first")
        await say(app, pilot, "next")
        for text in ("next", "first", "first"):
            await pilot.press("up")
            await until(pilot, lambda text=text: app.prompt.text == text)
        await pilot.press("down")
        await until(pilot, lambda: app.prompt.text == "next")
        await pilot.press("up", "end")
        await until(pilot, lambda: app.prompt.text == "first")
        await pilot.press("!", "enter")
        await until(pilot, lambda: len(engine.requests) == 3 and not app.busy)
        assert "two" not in shown(app)

    drive(engine, steps)
    assert engine.requests[2].message == "first!"
    assert engine.requests[2].past == ()


def test_regenerating_without_success_leaves_the_reply_that_was_there():
    engine = FakeEngine([["kept"], ContextOverflowError("no room")])

    async def steps(app, pilot):
        await say(app, pilot, "a")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "no room" in words(app))
        assert "kept" in shown(app)
        assert "branch" not in shown(app)
        assert app.prompt.text == ""

    drive(engine, steps)


def test_a_stopped_message_stands_before_what_was_typed_meanwhile():
    engine = FakeEngine([["x"]], gated=True)

    async def steps(app, pilot):
        await pilot.press(*"abc", "enter")
        await until(pilot, lambda: bool(engine.requests))
        await pilot.press(*"def", "escape")
        await until(pilot, lambda: not app.busy)
        assert app.prompt.text == "abc\ndef"

    drive(engine, steps)


def test_chats_are_kept_found_and_resumed(tmp_path):
    async def first(app, pilot):
        await say(app, pilot, "the zebra question")
        await pilot.press(*"draft", "ctrl+q")
        await until(pilot, lambda: not app.is_running)

    drive(FakeEngine([["striped"]]), first, library=Library(tmp_path))

    async def second(app, pilot):
        await say(app, pilot, "something else")
        await pilot.press("f2")
        await until(pilot, lambda: "2 chats" in shown(app))
        await pilot.press(*"STRIPED")
        await until(
            pilot, lambda: "1 chat" in words(app).replace("Chats", "") and "zebra" in shown(app)
        )
        await pilot.press("enter")
        await until(pilot, lambda: app.prompt.text == "draft")
        assert "the zebra question" in shown(app)
        assert "striped" in shown(app)
        await say(app, pilot, "on")

    engine = FakeEngine([["reply"]])
    drive(engine, second, library=Library(tmp_path))
    assert [one.reply for one in engine.requests[-1].past] == ["striped"]


def test_chats_are_renamed_and_deleted(tmp_path):
    async def steps(app, pilot):
        await say(app, pilot, "one")
        await command(app, pilot, "/rename Mine")
        assert "Mine" in shown(app)
        await pilot.press("f2")
        await until(pilot, lambda: "1 chat" in shown(app))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "Title" in shown(app))
        await pilot.press(*"Yes", "enter")
        await until(pilot, lambda: "MineYes" in shown(app))
        await pilot.press("delete")
        await until(pilot, lambda: "for good" in shown(app))
        await pilot.press("n")
        await until(pilot, lambda: "for good" not in shown(app))
        assert len(app.library.chats()) == 1
        await pilot.press("delete")
        await until(pilot, lambda: "for good" in shown(app))
        await pilot.press("y")
        await until(pilot, lambda: app.library.chats() == [])
        await pilot.press("escape")
        await until(pilot, lambda: "Write a message" in shown(app))
        assert "MineYes" not in shown(app)

    drive(FakeEngine([["x"]]), steps, library=Library(tmp_path))


def test_a_reply_under_way_is_written_down(tmp_path):
    engine = FakeEngine([["word "] * 50], gated=True)

    async def steps(app, pilot):
        await pilot.press("a", "enter")
        other = Library(tmp_path)
        for _ in range(10):
            engine.release(1)
            await pilot.pause(0.15)
        chat = other.chats()[0].id
        await until(pilot, lambda: other.turns(chat)[0].reply.startswith("word "))
        assert other.turns(chat)[0].finish is None
        other.close()
        await pilot.press("escape")
        await until(pilot, lambda: not app.busy)

    drive(engine, steps, library=Library(tmp_path))


def test_tools_are_off_asked_for_and_answered(tmp_path):
    (tmp_path / "a.txt").write_text("inside")
    calls = [Call("read_file", {"path": "a.txt"}), Call("calculate", {"expression": "6 * 7"})]
    engine = FakeEngine([["no tools"], ["I look"], ["done"]], calls=[calls, calls, []])

    async def steps(app, pilot):
        await say(app, pilot, "first")
        await command(app, pilot, "/tools on")
        app.prompt.put("second")
        await pilot.press("enter")
        await until(pilot, lambda: "read_file" in shown(app) and "Run it?" in shown(app))
        await pilot.press("n")
        await until(pilot, lambda: "calculate" in shown(app) and "Run it?" in shown(app))
        await pilot.press("y")
        await until(pilot, lambda: len(engine.requests) == 3 and not app.busy)
        assert "tool result" in shown(app)

    drive(engine, steps, folder=tmp_path)
    assert engine.requests[0].tools == ()
    assert len(engine.requests[1].tools) == 4
    assert engine.requests[2].role == "tool"
    assert engine.requests[2].message == "error: the user said no\n\n42"


def test_another_model_goes_on_with_the_chat(tmp_path):
    engine = FakeEngine([["one"], ["two"]])

    async def steps(app, pilot):
        await say(app, pilot, "a")
        await command(app, pilot, "/model missing")
        await until(pilot, lambda: "stays as it was" in shown(app))
        assert "missing: no such file" in words(app)
        await command(app, pilot, "/model other")
        await until(pilot, lambda: "other goes on" in shown(app))
        assert "% of 200" in shown(app)
        await say(app, pilot, "b")

    drive(engine, steps)
    (past,) = engine.requests[1].past
    assert (past.reply, past.reply_ids) == ("one", None)


def test_the_clipboard_is_written_on_a_key_only_and_without_thinking():
    reply = ["<think>hm</think>", "Look:\n```sh\nls\n```\n~~~\npwd\n~~~\n"]
    written = []

    async def steps(app, pilot):
        app._driver.write = lambda text: written.append(text)
        await say(app, pilot, "a")
        assert not any("\x1b]52" in text for text in written)
        await pilot.press("ctrl+y")
        assert app.clipboard.startswith("Look:")
        await pilot.press("alt+y")
        assert app.clipboard == "pwd"
        await command(app, pilot, "/copy 1")
        assert app.clipboard == "ls"
        await command(app, pilot, "/copy 3")
        assert "has 2 blocks" in shown(app)

    drive(FakeEngine([reply]), steps)
    copied = [text for text in written if "\x1b]52" in text]
    assert copied[-1] == f"\x1b]52;c;{base64.b64encode(b'ls').decode()}\a"
    assert len(copied) == 3


def test_thinking_is_folded_while_it_comes_and_after():
    engine = FakeEngine([["<think>", "let me ", "see", "</think>\n\n", "Yes."]], gated=True)

    async def steps(app, pilot):
        await pilot.press("a", "enter")
        engine.release(3)
        await until(pilot, lambda: "▸ thinking… · 3 words" in shown(app))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "┊ let me see" in shown(app))
        engine.release(2)
        await until(pilot, lambda: not app.busy)
        assert "▾ thought · 3 words" in shown(app)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "let me see" not in shown(app))
        assert "Yes." in shown(app)

    drive(engine, steps)


@pytest.mark.parametrize("n_turns", [1, 45, 500])
def test_long_chats_show_their_end_first(n_turns):
    library = Library(None)
    chat = library.new_chat()
    parent = None
    for n in range(n_turns):
        parent = library.add_turn(chat, parent, f"message {n}")
        library.end_turn(parent, outcome(f"reply {n}"))

    async def steps(app, pilot):
        await until(pilot, lambda: f"reply {n_turns - 1}" in shown(app))
        if n_turns > 40:
            assert len(app.transcript._earlier) == n_turns - 40
            await pilot.press("ctrl+home")
            await until(pilot, lambda: len(app.transcript._earlier) < n_turns - 40)
            await pilot.pause()
            assert f"message {n_turns - 40}" in shown(app)

    drive(FakeEngine([["x"]]), steps, library=library, chat=chat)
