"""The chat opens no connection: every network call of a session, and of idle minutes, is seen."""

from __future__ import annotations

import re
import shutil
import sys
import time

import pytest

from tui.tmux import Tmux, is_missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(is_missing(), reason="tmux is not installed"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
IDLE_S = 300
_INET = re.compile(r"(?:connect|bind|sendto)\(\d+, \{sa_family=AF_INET|socket\(AF_INET")


def test_a_session_and_idle_minutes_open_no_connection(tmp_path):
    log = tmp_path / "calls"
    calls = ("strace", "-f", "-qq", "-e", "trace=network", "-o", str(log))
    window = Tmux(tmp_path, *calls, sys.executable, "-m", "edgellm", "chat", "demo", "-n", "16")
    try:
        window.wait_for("Write a message", "ready")
        for line in ("Hello", "/model demo", "And now?", "/export md a.md", "/tools on"):
            window.type(line)
            window.keys("Enter")
            time.sleep(2)
        for key in ("F1", "F2", "F3", "F4", "F5", "F6", "Escape"):
            window.keys(key)
            time.sleep(1)
        window.wait_for("Write a message")
        time.sleep(IDLE_S)
        window.keys("C-q")
        window.wait_for_end()
    finally:
        window.close()
    assert "+++ exited" in log.read_text() or log.exists()
    found = [
        line for line in log.read_text().splitlines() if "connect(" in line or _INET.search(line)
    ]
    assert found == []
