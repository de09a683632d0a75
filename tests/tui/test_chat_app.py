"""What keys do on the chat screen, with a scripted engine behind it."""

from __future__ import annotations

import pytest
from edgellm.tui.fake_engine import FakeEngine
from textual import events

from edgellm.errors import ContextOverflowError, NumericError
from tui.screens import drive, say, shown, until, words

REPLY = ["Hello", " *there*", ", you."]


def asked(engine):
    """The messages that the engine got."""
    return [ask.message for ask in engine.requests]


def test_enter_sends_and_the_reply_comes_with_its_figures():
    engine = FakeEngine([REPLY])

    async def steps(app, pilot):
        await pilot.press(*"Hi!", "enter")
        await until(pilot, lambda: not app.busy and engine.requests)
        assert app.prompt.text == ""
        assert "Hi!" in shown(app)
        assert "Hello there, you." in shown(app)
        assert "3 tokens · 25.0 tokens/s · first after 120 ms · reused 0 of 10" in shown(app)

    drive(engine, steps)
    assert asked(engine) == ["Hi!"]
    assert engine.closed


def test_enter_without_text_sends_nothing():
    engine = FakeEngine([REPLY])

    async def steps(app, pilot):
        await pilot.press("enter", "space", "enter")
        await pilot.pause()

    drive(engine, steps)
    assert asked(engine) == []


def test_ctrl_j_makes_a_line():
    engine = FakeEngine([REPLY])

    async def steps(app, pilot):
        await pilot.press("a", "ctrl+j", "b", "enter")
        await until(pilot, lambda: not app.busy and engine.requests)

    drive(engine, steps)
    assert asked(engine) == ["a\nb"]


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
def test_a_paste_with_line_breaks_is_not_sent(newline):
    engine = FakeEngine([REPLY])

    async def steps(app, pilot):
        await pilot.press("x")
        app.prompt.post_message(events.Paste(f"one{newline}two{newline}"))
        await until(pilot, lambda: "two" in app.prompt.text)
        assert app.prompt.text == "xone\ntwo\n"
        assert asked(engine) == []
        await pilot.press("enter")
        await until(pilot, lambda: not app.busy and engine.requests)

    drive(engine, steps)
    assert asked(engine) == ["xone\ntwo\n"]


def test_what_is_pasted_is_sent_as_it_is_seen():
    async def steps(app, pilot):
        app.prompt.post_message(events.Paste("a\x1b[31mb\u202ec\x07"))
        await until(pilot, lambda: app.prompt.text != "")
        assert app.prompt.text == "a\u241b[31mb\ufffdc\u2407"

    drive(FakeEngine([REPLY]), steps)


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
def test_stopping_keeps_the_partial_reply_and_the_chat_goes_on(key):
    engine = FakeEngine([["one", " two", " three"], REPLY], gated=True)

    async def steps(app, pilot):
        await pilot.press("a", "enter")
        engine.release(2)
        await until(pilot, lambda: "one two" in shown(app))
        await pilot.press(key)
        await until(pilot, lambda: not app.busy)
        assert "one two" in shown(app)
        assert "three" not in shown(app)
        assert "2 tokens" in shown(app)
        assert "stopped" in shown(app)
        engine.release(3)
        await say(app, pilot, "b")
        assert "Hello there, you." in shown(app)
        assert "one two" in shown(app)

    drive(engine, steps)
    assert asked(engine) == ["a", "b"]


def test_stopping_before_the_first_word_gives_the_message_back():
    engine = FakeEngine([REPLY], gated=True)

    async def steps(app, pilot):
        await pilot.press(*"abc", "enter")
        await until(pilot, lambda: app.busy and engine.requests)
        await pilot.press("escape")
        await until(pilot, lambda: not app.busy)
        assert app.prompt.text == "abc"
        assert app.transcript.last_message is None

    drive(engine, steps)


def test_enter_while_a_reply_comes_keeps_the_draft():
    engine = FakeEngine([REPLY], gated=True)

    async def steps(app, pilot):
        await pilot.press("a", "enter")
        await pilot.press("b", "enter")
        await until(pilot, lambda: "Esc stops" in shown(app))
        assert app.prompt.text == "b"
        engine.release(3)
        await until(pilot, lambda: not app.busy)

    drive(engine, steps)
    assert asked(engine) == ["a"]


def test_regenerate_puts_another_reply_in_the_place_of_the_last():
    engine = FakeEngine([["first"], ["second"]])

    async def steps(app, pilot):
        await pilot.press("ctrl+r")
        await say(app, pilot, "a")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: not app.busy and len(engine.requests) == 2)
        assert "second" in shown(app)
        assert "first" not in shown(app).replace("first after", "")

    drive(engine, steps)
    assert asked(engine) == ["a", "a"]


def test_up_in_an_empty_prompt_edits_the_last_message_and_escape_leaves():
    engine = FakeEngine([["one"], ["two"]])

    async def steps(app, pilot):
        await pilot.press("up")
        assert app.prompt.text == ""
        await say(app, pilot, "first try")
        await pilot.press("up")
        await until(pilot, lambda: app.prompt.text == "first try")
        await pilot.press("escape")
        assert app.prompt.text == ""
        await pilot.press("up", "x")
        await pilot.press("enter")
        await until(pilot, lambda: not app.busy and len(engine.requests) == 2)
        assert "first tryx" in shown(app)
        assert "first tryx ▌ ◂ branch 2 of 2 ▸" in shown(app).replace("\n", "").replace("  ", "")
        assert "one" not in shown(app)
        assert "two" in shown(app)
        await say(app, pilot, "next")

    drive(engine, steps)
    assert asked(engine) == ["first try", "first tryx", "next"]


def test_an_edit_that_does_not_fit_leaves_everything_and_comes_back():
    engine = FakeEngine([["one"], ContextOverflowError("too long by 5")])

    async def steps(app, pilot):
        await say(app, pilot, "a")
        await pilot.press("up", "b", "enter")
        await until(pilot, lambda: not app.busy and len(engine.requests) == 2)
        assert app.prompt.text == "ab"
        assert "one" in shown(app)
        assert "too long by 5" in words(app)

    drive(engine, steps)


def test_an_error_is_a_notice_with_a_remedy_and_the_message_comes_back():
    engine = FakeEngine([ContextOverflowError("9 prompt tokens do not fit"), REPLY])

    async def steps(app, pilot):
        await say(app, pilot, "long")
        assert "9 prompt tokens do not fit" in words(app)
        assert "--policy drop_oldest_turns" in words(app)
        assert "Traceback" not in shown(app)
        assert app.prompt.text == "long"
        await pilot.press("enter")
        await until(pilot, lambda: not app.busy and len(engine.requests) == 2)
        assert "Hello there, you." in shown(app)

    drive(engine, steps)


def test_an_error_in_the_middle_keeps_what_came():
    broken = NumericError("a NaN in layer 3")
    engine = FakeEngine([["one", " two", " three"]], breaks_after=2, break_with=broken)

    async def steps(app, pilot):
        await say(app, pilot, "a")
        assert "one two" in shown(app)
        assert "a NaN in layer 3" in words(app)
        assert "the text so far stays" in words(app)
        assert app.transcript.last_message == "a"

    drive(engine, steps)


def test_a_bug_in_the_engine_is_a_notice_too():
    async def steps(app, pilot):
        await say(app, pilot, "a")
        assert "internal: ZeroDivisionError: oops" in words(app)
        assert "Traceback" not in shown(app)

    drive(FakeEngine([ZeroDivisionError("oops")]), steps)


def test_turns_that_left_the_context_are_said():
    async def steps(app, pilot):
        await say(app, pilot, "a")
        assert "the 2 oldest turns (14 tokens) left it" in words(app)

    drive(FakeEngine([REPLY], dropped_turns=2), steps)


def test_the_meter_follows_the_context():
    engine = FakeEngine([["x"] * 40, ["y"] * 30], n_ctx=100)

    async def steps(app, pilot):
        await until(pilot, lambda: "context ░░░░░░░░░░   0% of 100" in shown(app))
        await say(app, pilot, "a")
        assert "context █████░░░░░  50% of 100" in shown(app)
        await say(app, pilot, "b")
        assert "context █████████░  90% of 100" in shown(app)
        assert app.status.query_one("#meter").has_class("-full")

    drive(engine, steps)


def test_reading_back_is_not_disturbed_and_the_end_follows_again():
    lines = [f"line {i}\n\n" for i in range(60)]
    engine = FakeEngine([[*lines[:40], *lines[40:]]], gated=True)

    async def steps(app, pilot):
        await pilot.press("a", "enter")
        engine.release(40)
        await until(pilot, lambda: "line 39" in shown(app))
        await pilot.press("pageup", "pageup")
        await pilot.pause()
        before = app.transcript.scroll_y
        top = shown(app).splitlines()[2]
        engine.release(10)
        await until(pilot, lambda: "line 49" in app.transcript.last_reply)
        assert app.transcript.scroll_y == before
        assert shown(app).splitlines()[2] == top
        await pilot.press("ctrl+end")
        engine.release(10)
        await until(pilot, lambda: not app.busy)
        assert "line 59" in shown(app)

    drive(engine, steps)


@pytest.mark.parametrize("keys", [["ctrl+q"], ["ctrl+d"], ["ctrl+c", "ctrl+c"]])
def test_ways_to_quit(keys):
    async def steps(app, pilot):
        await pilot.press(*keys)
        await until(pilot, lambda: not app.is_running)

    engine = FakeEngine([REPLY])
    drive(engine, steps)
    assert engine.closed


def test_ctrl_d_in_a_text_deletes_and_typing_takes_the_first_ctrl_c_back():
    async def steps(app, pilot):
        await pilot.press("a", "b", "home", "ctrl+d")
        assert app.prompt.text == "b"
        await pilot.press("ctrl+c", "c", "ctrl+c")
        assert app.is_running
        assert "Ctrl+C again quits" in shown(app)

    drive(FakeEngine([REPLY]), steps)


def test_ctrl_c_copies_a_selection_and_does_not_quit():
    async def steps(app, pilot):
        await pilot.press(*"word", "shift+home", "ctrl+c")
        assert app.clipboard == "word"
        assert app.prompt.text == "word"
        assert "copied" in shown(app)

    drive(FakeEngine([REPLY]), steps)


def test_quitting_in_a_reply_stops_the_engine():
    engine = FakeEngine([REPLY], gated=True)

    async def steps(app, pilot):
        await pilot.press("a", "enter")
        await until(pilot, lambda: bool(engine.requests))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not app.is_running)

    drive(engine, steps)
    assert engine.closed


@pytest.mark.parametrize("size", [(40, 12), (32, 8), (80, 24)])
def test_small_windows_are_usable(size):
    engine = FakeEngine([["A reply that needs more than one line on a narrow screen."]])

    async def steps(app, pilot):
        await say(app, pilot, "Hello?")
        await pilot.press(*"draft")
        text = shown(app)
        assert "screen." in text
        assert "▌ draft" in text
        assert "% of 100" in text if size[0] >= 70 else "ctx  1" in text
        assert all(len(line) <= size[0] for line in text.splitlines())
        assert len(text.splitlines()) <= size[1]

    drive(engine, steps, size=size)


def test_markup_links_and_html_of_a_reply_are_text():
    reply = "[@click=app.exit]x[/] [red]y[/] [a](http://x.invalid) ![i](u) <b>z</b> &#27;[31m"

    async def steps(app, pilot):
        await say(app, pilot, "[@click=app.exit]me[/]")
        text = words(app)
        for part in reply.split(" "):
            assert part in text
        assert "[@click=app.exit]me[/]" in text
        for widget in app.transcript.walk_children():
            for strip in app.screen._compositor.render_strips():
                for segment in strip:
                    meta = segment.style.meta if segment.style else {}
                    assert "@click" not in meta, (widget, segment)

    drive(FakeEngine([[reply]]), steps)


def test_a_crash_of_the_screen_is_handed_to_the_caller():
    engine = FakeEngine([REPLY])

    async def steps(app, pilot):
        def broken(text):
            raise LookupError("bug")

        app.status.say = broken
        await pilot.press("a", "enter")
        await until(pilot, lambda: app.crash is not None)

    with pytest.raises(LookupError, match="bug"):
        drive(engine, steps)
