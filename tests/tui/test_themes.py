"""What is written can be read, in every theme."""

from __future__ import annotations

import pytest
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.settings import Settings
from edgellm.tui.themes import themes
from textual.color import Color

from edgellm.errors import NumericError
from tui.screens import drive, say, shown, until

REPLY = "<think>Well.</think>\n\n# Head\n\nSome `code`, *words*.\n\n> said\n\n|a|b|\n|-|-|\n|c|d|\n"
LEAST = 3.0  # of WCAG 2.2 for large text; terminals choose the size
EVERY = ("branch 2 of 2", "thought", "Well.", "Head", "code", "said", "tokens/s", "NaN", "Write")


def luminance(color: Color) -> float:
    """WCAG's, of 0 to 1."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color.normalized]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize("theme", themes())
def test_every_word_stands_out_from_what_is_behind_it(theme):
    async def steps(app, pilot):
        app.chat.action_thinking()
        await say(app, pilot, "a message")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: len(app.engine.requests) == 2 and not app.busy)
        await say(app, pilot, "another")
        app.prompt.put("")
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        words = [part for strip in strips for part in strip if part.text.strip(" ▌┊─│┌┬┐├┼┤└┴┘█░")]
        assert [text for text in EVERY if text not in shown(app)] == []
        for text, style, _ in words:
            pair = [luminance(Color.from_rich_color(c)) for c in (style.color, style.bgcolor)]
            assert (max(pair) + 0.05) / (min(pair) + 0.05) >= LEAST, (text, style)

    replies = [["x"], [REPLY], NumericError("NaN in layer 3")]
    drive(FakeEngine(replies), steps, size=(80, 40), settings=Settings(theme=theme))
