"""The screen under a real pseudo-terminal, with Textual's real driver."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tui.payloads import known_payloads
from tui.terminal_grammar import findings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are a POSIX matter")

ROWS, COLUMNS = 60, 120
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_COLOR_SYSTEM": "truecolor"}
PROGRAM = """
import json, sys, time
from pathlib import Path
from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine

class Measured(FakeEngine):
    def reply(self, request):
        cpu_s, wall_s = time.process_time(), time.monotonic()
        loops_s = []
        for event in super().reply(request):
            yield event
            if given["calibrate"]:
                loops_s.append(loop_s())
        figures = {
            "cpu_s": time.process_time() - cpu_s - sum(loops_s),
            "wall_s": time.monotonic() - wall_s,
            "loops_s": loops_s,
        }
        Path(sys.argv[2]).write_text(json.dumps(figures))

def loop_s():
    started_s, x = time.thread_time(), 0
    for i in range(20_000):
        x += i
    return time.thread_time() - started_s

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
        calibrate=False,
    )
    terminal.wait_for("Write a message")
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


@pytest.mark.slow
def test_the_screen_costs_at_most_a_twentieth_of_a_core(tmp_path):
    """1,000 tokens at 50 a second, of paragraphs, lists and code. CPU time of the process without
    that of the calibration: a busy host takes a part of the core away, and counts it as ours."""
    prose = "The quick brown fox jumps over the lazy dog, and *then* it **rests** a while. " * 3
    lists = "- one `item`\n- another item\n- and a last one\n\n"
    code = "```python\ndef f(x):\n    return x\n```\n\n"
    part = (prose + "\n\n") * 2 + lists + prose + "\n\n" + code
    tokens = [word + " " for word in (part * 30).split(" ")][:1000]
    engine = {"delay_s": 0.019, "n_ctx": 4096}
    terminal = Terminal(
        tmp_path, (24, 80), replies=[tokens], engine=engine, greeting=None, calibrate=True
    )
    terminal.wait_for("Write a message")
    terminal.type(b"go\r")
    terminal.wait_for("first after")
    terminal.type(b"\x11")
    assert terminal.end() == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    loops_s = sorted(figures["loops_s"])
    slowdown = sum(loops_s) / len(loops_s) / loops_s[len(loops_s) // 10]
    share = figures["cpu_s"] / figures["wall_s"] / slowdown
    print(
        f"{figures['cpu_s']:.2f} s of {figures['wall_s']:.1f} s, slowed down {slowdown:.2f} times"
    )
    assert figures["wall_s"] >= 19
    assert share <= 0.05
