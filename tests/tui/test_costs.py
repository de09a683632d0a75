"""What long chats and typing cost: in calls, which a busy machine does not change; the seconds of
the promises are for the slow tests."""

from __future__ import annotations

import asyncio
import os
import time
from statistics import median

import pytest
from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine
from textual.pilot import Pilot

from tui.costs import long_chat, shares_of_a_core, time_to_show
from tui.screens import Recorder, shown, until
from tui.test_drawing_work import Counter

SIZES = [(24, 80), (40, 140)]


def calls_to_show(n_messages: int) -> int:
    """Python calls from the library to the screen."""

    async def run() -> int:
        library, chat = long_chat(n_messages)
        with Counter() as counter:
            app = ChatApp(FakeEngine([["x"]]), library=library, chat=chat)
            async with app.run_test(size=(80, 24)) as pilot:
                await until(pilot, lambda: f"reply {n_messages // 2 - 1}" in shown(app))
        return counter.n_calls

    return asyncio.run(run())


def test_a_thousand_messages_cost_little_more_than_a_hundred():
    few, many = calls_to_show(100), calls_to_show(1000)
    print(f"{few} and {many} calls")
    assert many <= 1.6 * few


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are a POSIX matter")
@pytest.mark.parametrize("size", SIZES)
def test_the_screen_costs_at_most_a_twentieth_of_a_core(size):
    """The median of stretches of two seconds. On a busy host, which takes a part of the core away,
    the screen keeps to its share by drawing less often; that drawing itself does not become dearer
    is for test_drawing_work.py."""
    shares = shares_of_a_core(size)
    print(f"{median(shares):.2%} of a core; stretches of {min(shares):.2%} to {max(shares):.2%}")
    assert median(shares) <= 0.05


@pytest.mark.slow
def test_a_thousand_messages_are_there_in_six_tenths_of_a_second():
    """CPU time, and the better of three."""
    best = min(time_to_show(1000, SIZES[0]).cpu_s for _ in range(3))
    print(f"{best:.3f} s")
    assert best <= 0.6


@pytest.mark.slow
def test_a_key_is_painted_within_fifty_milliseconds_while_a_reply_comes():
    """CPU time between a key and its paint, the median of fifty."""

    async def run() -> float:
        engine = FakeEngine([["word "] * 2000], delay_s=0.02, n_ctx=10_000)
        app = ChatApp(engine)
        app.driver_class = type("ThisRecorder", (Recorder,), {"written": []})
        took = []
        async with app.run_test(headless=False, size=(80, 24)) as pilot:
            await pilot.press("a", "enter")
            await until(pilot, lambda: "word" in shown(app))
            for n in range(50):
                start = time.thread_time()
                await painted(app, pilot, n + 1)
                took.append(time.thread_time() - start)
            await pilot.press("escape")
        return sorted(took)[25]

    async def painted(app: ChatApp, pilot: Pilot[None], n: int) -> None:
        app.driver_class.written.clear()
        await pilot.press("x")
        while app.prompt.text != "x" * n or "x" not in "".join(app.driver_class.written):
            await asyncio.sleep(0.001)

    median = asyncio.run(run())
    print(f"{1e3 * median:.1f} ms")
    assert median <= 0.05
