"""No text steers the terminal: known and random payloads through every sink of the chat."""

from __future__ import annotations

import asyncio
import gc
import io
import random
from collections.abc import Iterable, Iterator, Sequence

import pytest
from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.widgets.transcript import Transcript
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.color import Color
from textual.pilot import Pilot
from textual.widget import Widget

from edgellm.cli.output import note, print_error, print_text
from tui.payloads import known_payloads, pieces, random_payload
from tui.screens import Recorder
from tui.terminal_grammar import findings, steers

COLUMNS, ROWS = 900, 24  # wide: the cost is by the line
KNOWN = known_payloads()
_SEPARATORS = ("\n", "\n", "\n", " ", "\n\n", "\n- ", "\n> ", "\n# ")


async def show_everywhere(
    app: ChatApp, pilot: Pilot[None], texts: Sequence[str], seed: int
) -> None:
    """All of `texts` through message, reply (in pieces) and prompt; some through figures, notice
    and status, which are made of the same widget as messages are."""
    rng = random.Random(seed)
    # A separator after every fifth: otherwise a thousand little blocks.
    text = "".join(
        t + (rng.choice(_SEPARATORS) if i % 5 == 0 else " ") for i, t in enumerate(texts)
    )
    with app.batch_update():
        app.transcript.drop_last_turn()
        app.transcript.add_message(text)
        app.transcript.begin_reply()
        for piece in pieces(text, rng, 4):
            app.transcript.feed(piece)
        app.transcript.end_reply("".join(texts[:9]))
        app.transcript.notice("".join(texts[:9]), "error")
        app.status.say(rng.choice(texts))
        app.prompt.put("")
        app.prompt.post_message(events.Paste(text))
        await pilot.pause()
    await pilot.pause()


def run_on_screen(chunks: Iterable[Sequence[str]], name: str) -> tuple[str, list[str]]:
    """Everything written to the terminal while `chunks` are shown, and every piece of a line, on
    the screen or scrolled away, with more than glyphs in it. `name` is the model's."""

    async def run() -> tuple[str, list[str]]:
        app = ChatApp(FakeEngine([["x"]], name=name, details=name), greeting=name)
        app.driver_class = type("ThisRecorder", (Recorder,), {"written": []})
        bad: list[str] = []
        async with app.run_test(headless=False, size=(COLUMNS, ROWS)) as pilot:
            for seed, chunk in enumerate(chunks):
                await show_everywhere(app, pilot, chunk, seed)
                for widget in app.screen.walk_children():
                    if isinstance(widget, Transcript) or not widget.children:
                        bad += bad_segments(widget)
                gc.collect()
        return "".join(app.driver_class.written), bad

    return asyncio.run(run())


def bad_segments(widget: Widget) -> list[str]:
    """What `widget` would draw, all of it, that is more than glyphs."""
    found = []
    if isinstance(widget, Transcript):
        strips = [widget.line_strip(number) for number in range(widget.virtual_size.height)]
    else:
        strips = widget.render_lines(widget.size.region)
    for strip in strips:
        for text, style, control in strip:
            plain = text.isascii() and text.isprintable()
            if control or not (plain or not any(map(steers, text))) or (style and style.link):
                found.append(text)
    return found


@pytest.fixture
def few_collections() -> Iterator[None]:
    """Every line drawn leaves dozens of objects: most of the time went into looking for garbage."""
    gc.disable()
    yield
    gc.enable()


def run_in_lines(texts: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything that line mode writes for `texts`."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stdout", written)
    monkeypatch.setattr("sys.stderr", written)
    for text in texts:
        print_text(text)
        note(text)
        print_error(text)
    monkeypatch.undo()
    return written.getvalue()


def random_payloads(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [random_payload(rng) for _ in range(n)]


def chunked(payloads: Sequence[str], n: int) -> list[Sequence[str]]:
    return [payloads[at : at + n] for at in range(0, len(payloads), n)]


def check_on_screen(chunks: list[Sequence[str]]) -> None:
    written, bad = run_on_screen(chunks, name="".join(chunks[0][:20]))
    assert bad == []
    assert findings(written, ROWS, COLUMNS) == []
    assert "\u241b" in written  # it was shown


def test_the_catalogue_is_large_and_has_every_family():
    assert len(KNOWN) == len(set(KNOWN)) >= 500
    text = "".join(KNOWN)
    families = (
        "\x1b[",
        "\x9b",
        "\x1b]52;",
        "\x1b]8;",
        "\x9d8;",
        "\x1bPq",
        "\x1b_G",
        "\x9f",
        "\x1b^",
    )
    for family in (*families, "\x1bX", "\x98", "1337;File", "$q", "\u202e", "\u200b", "[@click="):
        assert family in text


def test_known_payloads_do_not_get_through_the_screen():
    check_on_screen(chunked(KNOWN, 40))


def test_known_payloads_do_not_get_through_line_mode(monkeypatch):
    written = run_in_lines(KNOWN, monkeypatch)
    assert [char for char in written if steers(char) and char not in "\n\t"] == []


def test_random_payloads_do_not_get_through(few_collections, monkeypatch):
    payloads = random_payloads(20_000, seed=1)
    check_on_screen(chunked(payloads, 5000))
    written = run_in_lines(payloads, monkeypatch)
    assert [char for char in written if steers(char) and char not in "\n\t"] == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(20))
def test_a_million_random_payloads_do_not_get_through(part, few_collections, monkeypatch):
    payloads = random_payloads(50_000, seed=100 + part)
    check_on_screen(chunked(payloads, 5000))
    written = run_in_lines(payloads, monkeypatch)
    assert [char for char in written if steers(char) and char not in "\n\t"] == []


def test_the_guard_stops_what_a_widget_let_through():
    from edgellm.tui.widgets.plain import TerminalGuard

    link = Style(link="http://e.invalid", bold=True)
    raw = [Segment("a\x1b[31m\n"), Segment("\u202eb", link), Segment("ok", link), Segment("fine")]
    guarded = TerminalGuard().apply(raw, Color(0, 0, 0))
    assert [s.text for s in guarded] == ["a\u241b[31m\u240a", "\ufffdb", "ok", "fine"]
    assert [s.style.link for s in guarded if s.style] == [None, None]
    assert guarded[2].style is not None
    assert guarded[2].style.bold
    assert guarded[3] is raw[3]


@pytest.mark.parametrize("bad", ["\x1b[31m", "\x1b[999;1H", "\x9b1m", "\x07", "\x1b]0;t\x07", "\r"])
def test_the_grammar_itself_finds_what_is_not_textuals(bad):
    own = "\x1b[1;38;2;9;9;9mx\x1b[0m\x1b[3;4H\x1b[?25l\r\n"
    assert findings(own, 24, 80) == []
    assert findings(own + bad + "x", 24, 80) != []
