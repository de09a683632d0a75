"""What is copied from the transcript, and what a window of another size makes of it."""

from __future__ import annotations

from edgellm.tui.fake_engine import FakeEngine
from textual.geometry import Offset
from textual.selection import SELECT_ALL, Selection

from tui.screens import drive, say, shown, until

LONG = "These words are more than a line of the window can hold, and so they are wrapped by it."
REPLY = f"{LONG}\n\n- one\n\n```\nx = 1\n\ny = 2\n```\n\n> said"


def test_what_is_copied_has_the_line_breaks_of_the_text_and_no_bars():
    async def steps(app, pilot):
        await say(app, pilot, "two\nlines")
        text, end = app.transcript.get_selection(SELECT_ALL)
        assert end == "\n"
        code = "x = 1\n\ny = 2"
        assert text.startswith(f"two\nlines\n\n{LONG}\none\n\n{code}\n\nsaid\n{len(REPLY)} tok")

    drive(FakeEngine([[*REPLY]]), steps, size=(60, 30))


def test_the_mouse_selects_and_ctrl_c_copies():
    async def steps(app, pilot):
        await say(app, pilot, "Hello")
        row = next(n for n, line in enumerate(shown(app).splitlines()) if "Fine" in line)
        await pilot.mouse_down(offset=Offset(3, row))
        await pilot.hover(offset=Offset(10, row))
        await pilot.mouse_up(offset=Offset(10, row))
        await until(pilot, lambda: app.transcript.text_selection is not None)
        strip = app.screen._compositor.render_strips()[row]
        plain = app.transcript.line_strip(2)
        assert strip.text.rstrip() == plain.text.rstrip()
        colours = {text: style.bgcolor for text, style, _ in strip if "Fine" in text}
        assert colours != {text: style.bgcolor for text, style, _ in plain if "Fine" in text}
        await pilot.press("ctrl+c")
        assert app.clipboard.startswith("Fine, t")
        assert "\u258c" not in app.clipboard

    drive(FakeEngine([["Fine, thanks."]]), steps)


def test_a_selection_within_a_wrapped_line():
    async def steps(app, pilot):
        await say(app, pilot, "Hello")
        start = next(n for n, line in enumerate(app.transcript._lines) if "These" in line.text)
        selection = Selection(Offset(9, start), Offset(8, start + 1))
        text, _ = app.transcript.get_selection(selection)
        assert text == LONG[6 : len(text) + 6]

    drive(FakeEngine([[LONG]]), steps, size=(40, 20))


def test_a_window_of_another_size_wraps_anew_and_stays_at_the_end():
    async def steps(app, pilot):
        for _ in range(6):
            await say(app, pilot, "Hello")
        await pilot.resize_terminal(44, 20)
        await pilot.pause()
        assert "wrapped by it." in shown(app)
        assert all(len(line) <= 44 for line in shown(app).splitlines())
        await pilot.resize_terminal(120, 14)
        await pilot.pause()
        assert LONG in shown(app)
        assert "2 tokens" in shown(app).splitlines()[-5]

    drive(FakeEngine([[LONG, "\n"]]), steps)
