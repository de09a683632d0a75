"""Drives a ChatApp with Textual's Pilot: waiting for a state, and reading the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine
from textual.drivers.headless_driver import HeadlessDriver
from textual.pilot import Pilot

_PATIENCE_S = 60.0  # only ever used up by a failure

Steps = Callable[[ChatApp, "Pilot[None]"], Awaitable[None]]


class Recorder(HeadlessDriver):
    """Keeps what is written to the terminal."""

    written: list[str]

    @property
    def is_headless(self) -> bool:
        return False  # or nothing would be written

    def write(self, data: str) -> None:
        self.written.append(data)


def drive(
    engine: FakeEngine, steps: Steps, *, size: tuple[int, int] = (80, 24), **app: Any
) -> None:
    """Run `steps` on a chat with `engine`."""

    async def run() -> None:
        chat = ChatApp(engine, **app)
        async with chat.run_test(size=size) as pilot:
            await steps(chat, pilot)

    asyncio.run(run())


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Let the app run until `condition` holds."""
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():
            await pilot.pause(0.02)
    await pilot.pause()


async def say(app: ChatApp, pilot: Pilot[None], text: str) -> None:
    """Type and send, and wait for the reply to end."""
    app.prompt.put(text)
    await pilot.press("enter")
    await pilot.pause()
    await until(pilot, lambda: not app.busy)


async def command(app: ChatApp, pilot: Pilot[None], line: str) -> None:
    """Type and press Enter."""
    app.prompt.put(line)
    await pilot.press("enter")
    await pilot.pause()


def shown(app: ChatApp) -> str:
    """The screen as text, without trailing blanks."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(s.text for s in line).rstrip() for line in lines).rstrip("\n")


def words(app: ChatApp) -> str:
    """The screen as one line of words, whatever was wrapped where."""
    return " ".join(shown(app).replace("▌", " ").split())
