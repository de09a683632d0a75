"""A scripted chat on a pseudo-terminal of its own, with Textual's real driver."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

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
written = {"asked": [one.message for one in engine.requests], "draft": app.prompt.text}
Path(sys.argv[1]).with_name("written.json").write_text(json.dumps(written))
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

    def press(self, key: bytes) -> None:
        """At once."""
        os.write(self._ours, key)

    def read_for(self, seconds: float) -> None:
        """What comes meanwhile."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            self._read(rest)

    def wait_for(self, text: str, n: int = 1, *, start: int = 0) -> None:
        """Until `text` was written `n` times, from byte `start` on."""
        deadline = time.monotonic() + 120
        while self.written.count(text.encode(), start) < n:
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
