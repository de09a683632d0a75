"""The screen under a real pseudo-terminal, with Textual's real driver."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from tui.payloads import known_payloads
from tui.terminal_grammar import findings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are a POSIX matter")

ROWS, COLUMNS = 60, 120
TERMINAL = {
    "TERM": "xterm-256color",
    "COLORTERM": "truecolor",
    "TEXTUAL_COLOR_SYSTEM": "truecolor",
    "VISUAL": "true",  # payloads end their paste and type Ctrl+G
}
PROGRAM = """
import json, sys, time
from pathlib import Path
from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine

class Measured(FakeEngine):
    def reply(self, request):
        marks = []
        for n, event in enumerate(super().reply(request)):
            if n % given["mark_every"] == 0:
                # This thread is the model's: what it takes is not the screen's.
                marks.append((time.process_time() - time.thread_time(), time.monotonic()))
            yield event
        Path(sys.argv[2]).write_text(json.dumps(marks))

given = json.loads(Path(sys.argv[1]).read_text())
engine = Measured(given["replies"], **given["engine"])
app = ChatApp(engine, greeting=given["greeting"])
app.run()
sys.exit(0 if app.crash is None else 1)
"""


class Terminal:
    """A process on a pseudo-terminal of its own, and everything it has written."""

    def __init__(self, directory: Path, size: tuple[int, int], **given: object) -> None:
        import fcntl
        import pty
        import struct
        import termios

        (directory / "given.json").write_text(json.dumps(given))
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        skipped = ("NO_COLOR", "COLUMNS", "LINES")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, directory / "given.json", directory / "figures.json"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={k: v for k, v in os.environ.items() if k not in skipped} | TERMINAL,
            start_new_session=True,
        )
        os.close(theirs)
        self.written = b""

    def type(self, keys: bytes) -> None:
        """In small parts: a terminal takes only so much that nobody has read yet."""
        for at in range(0, len(keys), 512):
            os.write(self._ours, keys[at : at + 512])
            self._read(0.01)

    def wait_for(self, text: str, n: int = 1) -> None:
        """Until `text` was written `n` times."""
        deadline = time.monotonic() + 120
        while self.written.count(text.encode()) < n:
            assert time.monotonic() < deadline, self.written[-2000:]
            assert self._read(1.0), self.written[-2000:]

    def end(self) -> int:
        """Read the rest; the exit code."""
        while self._read(1.0):
            pass
        os.close(self._ours)
        return self.process.wait(timeout=30)

    def leave(self) -> int:
        """Close the window; the exit code."""
        os.close(self._ours)
        return self.process.wait(timeout=60)

    def _read(self, timeout_s: float) -> bool:
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return True
        try:
            chunk = os.read(self._ours, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.written += chunk
        return bool(chunk)


def test_known_payloads_do_not_get_through_the_real_driver(tmp_path):
    known = known_payloads()
    replies = [[*"\n".join(known[at : at + 50])] for at in range(0, len(known), 50)]
    greeting = " ".join(known[:40])
    engine = {"name": known[0] + known[9], "details": "".join(known[300:310]), "n_ctx": 100_000}
    terminal = Terminal(
        tmp_path,
        (ROWS, COLUMNS),
        replies=replies,
        engine=engine,
        greeting=greeting,
        mark_every=1000,
    )
    terminal.wait_for("rite a message")
    for at in range(len(replies)):
        text = " ".join(known[at * 50 : at * 50 + 50])
        # One bracketed paste, end marker included, and Enter.
        terminal.type(b"\x1b[200~" + text.encode(errors="ignore") + b"\x1b[201~")
        terminal.type(b"\r")
        terminal.wait_for("first after", at + 1)
    terminal.type(b"\x11")
    assert terminal.end() == 0
    written = terminal.written.decode()
    assert findings(written, ROWS, COLUMNS) == []
    assert written.count("\u241b") > 200
    assert written.endswith("\x1b[?1004l") or "\x1b[?1049l" in written[-200:]


def test_a_chat_ends_with_its_terminal(tmp_path):
    given = {"replies": [["hi"]], "engine": {"n_ctx": 512}, "greeting": None, "mark_every": 1000}
    terminal = Terminal(tmp_path, (ROWS, COLUMNS), **given)
    terminal.wait_for("rite a message")
    assert terminal.leave() == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [(24, 80), (40, 140)])
def test_the_screen_costs_at_most_a_twentieth_of_a_core(tmp_path, size):
    """1,200 tokens at 50 a second of all that a reply is made of, the long block of code included.
    CPU time of the process without that of the engine's thread, as the median of stretches of two
    seconds. On a busy host, which takes a part of the core away, the screen keeps to its share by
    drawing less often; that drawing itself does not become dearer is for test_drawing_work.py."""
    prose = "The quick brown fox jumps over the lazy dog, and *then* it **rests** a while. " * 6
    lists = "- one `item` of some words\n- another item\n- and a last one\n\n"
    code = "```python\n" + "    value = compute(value, other)  # a remark\n" * 40 + "```\n\n"
    table = "| option | meaning |\n|---|---|\n" + "| `-l` | one a line of them |\n" * 8 + "\n"
    part = f"## A heading\n\n{prose}\n\n{lists}{prose}\n\n{code}{prose}\n\n{table}"
    tokens = [word + " " for word in (part * 5).split(" ")][:1200]
    engine = {"delay_s": 0.0195, "n_ctx": 4096}
    given = {"replies": [tokens], "engine": engine, "greeting": None, "mark_every": 100}
    terminal = Terminal(tmp_path, size, **given)
    terminal.wait_for("rite a message")
    terminal.type(b"go\r")
    terminal.wait_for("first after")
    terminal.type(b"\x11")
    assert terminal.end() == 0
    marks = json.loads((tmp_path / "figures.json").read_text())
    shares = [(end[0] - start[0]) / (end[1] - start[1]) for start, end in pairwise(marks)]
    print(f"{median(shares):.2%} of a core; stretches of {min(shares):.2%} to {max(shares):.2%}")
    assert len(shares) >= 11
    assert marks[-1][1] - marks[0][1] >= 20
    assert median(shares) <= 0.05
