"""What the chat costs: seconds of the processor and of the wall, for tests and for
benchmarks/chat_costs.py."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgellm.tui.app import ChatApp
from edgellm.tui.conversation import Conversation
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.library import Library, Outcome

from tui.screens import shown, until
from tui.terminal import Terminal

REPLY = "Listed by **size** with `ls`:\n\n1. open a shell,\n2. write:\n\n```sh\nls\n```\n"
N_TOKENS = 1200
TOKENS_PER_S = 50
_MARK_EVERY = 100  # tokens: two seconds
_N_KEYS = 60
_KEY = "Z"  # in no reply and no sequence


@dataclass(frozen=True)
class Seconds:
    """Of the processor and of the wall."""

    cpu_s: float
    wall_s: float


def all_of_markdown() -> list[str]:
    """A reply of all that replies are made of, in tokens, the long block of code included."""
    prose = "The quick brown fox jumps over the lazy dog, and *then* it **rests** a while. " * 6
    lists = "- one `item` of some words\n- another item\n- and a last one\n\n"
    code = "```python\n" + "    value = compute(value, other)  # a remark\n" * 40 + "```\n\n"
    table = "| option | meaning |\n|---|---|\n" + "| `-l` | one a line of them |\n" * 8 + "\n"
    part = f"## A heading\n\n{prose}\n\n{lists}{prose}\n\n{code}{prose}\n\n{table}"
    return [word + " " for word in (part * 5).split(" ")][:N_TOKENS]


def shares_of_a_core(size: tuple[int, int]) -> list[float]:
    """CPU time of the process without the engine's thread while a reply of 1,200 tokens comes at 50
    a second, as shares of a core, in stretches of two seconds. size: rows, columns."""
    with tempfile.TemporaryDirectory() as folder:
        terminal = _streaming(Path(folder), size, all_of_markdown(), _MARK_EVERY)
        terminal.wait_for("first after")
        terminal.type(b"\x11")
        assert terminal.end() == 0
        marks = json.loads((Path(folder) / "figures.json").read_text())
    shares = [(end[0] - start[0]) / (end[1] - start[1]) for start, end in pairwise(marks)]
    assert len(shares) == N_TOKENS // _MARK_EVERY, marks
    assert marks[-1][1] - marks[0][1] >= 0.9 * N_TOKENS / TOKENS_PER_S, marks
    return shares


def seconds_to_paint_keys(size: tuple[int, int]) -> list[float]:
    """From a byte that is written to the terminal to the byte on the screen, while a reply comes at
    50 tokens/s: 60 keys, at random moments."""
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        terminal = _streaming(Path(folder), size, ["word "] * 100_000, 10**9)
        terminal.wait_for("word word")
        took = []
        for n in range(_N_KEYS):
            terminal.read_for(draw.uniform(0.05, 0.15))
            start, before = time.perf_counter(), len(terminal.written)
            terminal.press(_KEY.encode())
            terminal.wait_for(_KEY * (n + 1), start=before)
            took.append(time.perf_counter() - start)
        terminal.press(b"\x11")
        assert terminal.end() == 0
    return took


def _streaming(
    folder: Path, size: tuple[int, int], tokens: Sequence[str], mark_every: int
) -> Terminal:
    # A wait takes a little longer than asked for.
    engine = {"delay_s": 0.975 / TOKENS_PER_S, "n_ctx": 10**6}
    given = {"replies": [tokens], "engine": engine, "greeting": None, "mark_every": mark_every}
    terminal = Terminal(folder, size, **given)
    terminal.wait_for("rite a message")
    terminal.type(b"go\r")
    return terminal


def long_chat(n_messages: int) -> tuple[Library, int]:
    """Half of them are replies."""
    library = Library(None)
    chat = library.new_chat()
    parent = None
    for n in range(n_messages // 2):
        parent = library.add_turn(chat, parent, f"message {n}")
        library.end_turn(parent, Outcome(f"reply {n}\n\n{REPLY}", None, "", "", "stop", "f", 0))
    return library, chat


def time_to_show(n_messages: int, size: tuple[int, int]) -> Seconds:
    """From the wish for a chat of so many messages to its last reply on the screen. size: rows,
    columns."""

    async def run() -> Seconds:
        library, chat = long_chat(n_messages)
        app = ChatApp(FakeEngine([["x"]]), library=library)
        async with app.run_test(size=size[::-1]) as pilot:
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            app.chat.show_chat(Conversation(library, chat))
            await until(pilot, lambda: f"reply {n_messages // 2 - 1}" in shown(app))
            return Seconds(time.process_time() - cpu_s, time.perf_counter() - wall_s)

    return asyncio.run(run())
