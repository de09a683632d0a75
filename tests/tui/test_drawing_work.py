"""How much work a growing reply is: Python calls per batch of text, which no busy machine changes.

The time it takes is asserted by the slow tests of test_costs.py.
"""

from __future__ import annotations

import asyncio
import sys
from types import FrameType

import pytest
from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine
from textual.pilot import Pilot

from tui.screens import Recorder

PROSE = (
    "The quick brown fox jumps over the lazy dog, and *then* it **rests** a while. " * 3 + "\n\n"
)
ITEMS = "- one `item` of some words\n- another item of the list\n" * 5 + "\n"
CODE = "```python\n" + "    value = compute(value, other, 17)  # a remark\n" * 150
TABLE = "| option | meaning | default |\n|---|---|---|\n" + "| `-l` | one a line | no |\n" * 8
N_BATCH, N_BATCHES = 28, 60  # characters: five tokens


class Counter:
    """Calls of Python and C functions on this thread while it is active."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __enter__(self) -> Counter:
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, _frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            self.n_calls += 1


def calls_per_batch(reply: str, *, n_earlier: int = 0) -> float:
    """Feeding and drawing `reply` on a window that is full, after so many messages."""

    async def run() -> float:
        app = ChatApp(FakeEngine([["x"]]))
        app.driver_class = type("ThisRecorder", (Recorder,), {"written": []})
        async with app.run_test(headless=False, size=(80, 24)) as pilot:
            for n in range(n_earlier):
                app.transcript.add_message(f"message {n}")
                app.transcript.begin_reply()
                app.transcript.feed(f"reply {n}")
            app.transcript.add_message("go")
            app.transcript.begin_reply()
            app.transcript.feed("line\n\n" * 20)
            await drawn(pilot)
            with Counter() as counter:
                for at in range(0, N_BATCHES * N_BATCH, N_BATCH):
                    app.transcript.feed(reply[at : at + N_BATCH])
                    await drawn(pilot)
            return counter.n_calls / N_BATCHES

    return asyncio.run(run())


async def drawn(pilot: Pilot[None]) -> None:
    """Textual draws within a sixtieth of a second."""
    await asyncio.sleep(0.03)
    await pilot.app.animator.wait_for_idle()


@pytest.mark.parametrize(
    ("reply", "n_most"),
    [
        (PROSE * 8, 9_000),
        (ITEMS * 12, 14_000),
        (CODE, 9_000),
        ((TABLE + PROSE + CODE[:400] + "```\n\n") * 3, 14_000),
    ],
    ids=["prose", "items", "code", "tables"],
)
def test_a_batch_of_text_is_little_work(reply, n_most):
    """Two thirds of these limits; a widget for every block, as Textual has it, made 40,000."""
    n_calls = calls_per_batch(reply)
    print(f"{n_calls:.0f} calls for a batch")
    assert n_calls <= n_most


def test_a_thousand_messages_do_not_make_a_reply_dearer():
    assert calls_per_batch(PROSE * 8, n_earlier=1000) <= 1.2 * calls_per_batch(PROSE * 8)


def test_an_idle_chat_draws_nothing():
    async def run() -> int:
        app = ChatApp(FakeEngine([["x"]]))
        app.driver_class = type("ThisRecorder", (Recorder,), {"written": []})
        async with app.run_test(headless=False, size=(80, 24)) as pilot:
            app.prompt.focus()
            await asyncio.sleep(0.5)
            await drawn(pilot)
            n_before = len(app.driver_class.written)
            assert n_before > 0
            await asyncio.sleep(1.5)  # cursors blink every half second
            return len(app.driver_class.written) - n_before

    assert asyncio.run(run()) == 0
