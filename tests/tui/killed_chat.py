"""A chat that is killed in the middle: on a pseudo-terminal of its own, with a scripted engine,
while keys are typed and a reply comes."""

from __future__ import annotations

import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import sys, time
from pathlib import Path
from edgellm.tui.app import ChatApp
from edgellm.tui.fake_engine import FakeEngine
from edgellm.tui.library import Library

log = open(sys.argv[2], "ab", buffering=0)

class Logged(FakeEngine):
    def reply(self, ask):
        log.write(f"{time.monotonic_ns()} sent {ask.message}\\n".encode())
        n = 0
        for event in super().reply(ask):
            n += type(event).__name__ == "TextPiece"
            log.write(f"{time.monotonic_ns()} piece {n}\\n".encode())
            yield event

engine = Logged([[f"w{n} " for n in range(100_000)]], delay_s=0.02, n_ctx=10**6)
app = ChatApp(engine, library=Library(Path(sys.argv[1])))
app.run()
"""
_LATEST_S = 1.0  # as promised; what is older must be there
_TOLERANCE_S = 2.0  # more, for a machine that does something else


@dataclass(frozen=True)
class Remains:
    """What one killed chat has left. Ages in seconds before the kill: of the latest word of the
    reply and of the draft that was kept."""

    n_sent: int
    n_kept: int
    reply_lost_s: float
    draft_lost_s: float
    integrity: str
    modes: frozenset[int]


def kill_one(folder: Path, after_s: float) -> Remains:
    """Start, type, send, type again, kill so long after the first word of the reply."""
    log = folder / "log"
    log.touch()
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, folder / "chats", log],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    typed: list[tuple[int, str]] = []
    try:
        _until(ours, lambda written: b"rite a message" in written)
        os.write(ours, b"a message that is sent\r")
        _until(ours, lambda _: b" piece 1\n" in log.read_bytes())
        text = ""
        end = time.monotonic() + after_s
        while time.monotonic() < end:
            word = f"{len(text)} "
            text += word
            os.write(ours, word.encode())
            typed.append((time.monotonic_ns(), text))
            _read(ours, 0.02)
        killed_ns = time.monotonic_ns()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)
    return _remains(folder, log.read_text(), killed_ns, typed)


def _remains(folder: Path, log: str, killed_ns: int, typed: list[tuple[int, str]]) -> Remains:
    chats = folder / "chats"
    modes = frozenset(path.stat().st_mode & 0o777 for path in chats.iterdir())
    database = sqlite3.connect(chats / "chats.db")
    (integrity,) = database.execute("PRAGMA integrity_check").fetchone()
    turns = database.execute(
        "SELECT t.message, coalesce(p.reply, t.reply) FROM turns t "
        "LEFT JOIN partials p ON p.turn = t.id"
    ).fetchall()
    drafts = [row[0] for row in database.execute("SELECT text FROM drafts")]
    database.close()
    lines = [line.split(" ", 2) for line in log.splitlines() if line.count(" ") >= 2]
    sent = [rest for _, what, rest in lines if what == "sent"]
    n_words = len(turns[0][1].split()) if turns else 0
    next_word = [int(at) for at, what, rest in lines if what == "piece" and int(rest) > n_words]
    draft = drafts[0] if drafts else ""
    n_draft = len(draft)
    next_key = [at for at, text in typed if len(text) > n_draft]
    return Remains(
        n_sent=len(sent),
        n_kept=sum(message in sent for message, _ in turns),
        reply_lost_s=(killed_ns - min(next_word, default=killed_ns)) / 1e9,
        draft_lost_s=(killed_ns - min(next_key, default=killed_ns)) / 1e9,
        integrity=str(integrity),
        modes=modes,
    )


def check(remains: Remains) -> None:
    """What is promised."""
    assert remains.n_kept == remains.n_sent == 1, remains
    assert remains.integrity == "ok"
    assert remains.modes == {0o600}
    assert remains.reply_lost_s <= _LATEST_S + _TOLERANCE_S, remains
    assert remains.draft_lost_s <= _LATEST_S + _TOLERANCE_S, remains


def _until(terminal: int, done: Callable[[bytes], bool]) -> None:
    written = b""
    deadline = time.monotonic() + 120
    while not done(written):
        assert time.monotonic() < deadline, written[-500:]
        written += _read(terminal, 0.05)


def _read(terminal: int, timeout_s: float) -> bytes:
    if select.select([terminal], [], [], timeout_s)[0]:
        return os.read(terminal, 65536)
    return b""
