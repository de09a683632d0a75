"""Nothing but `edgellm pull` connects to anything: the system calls say so, on Linux with strace.

Of the whole run of tests/cli, and of a server and a chat that wait for EDGELLM_TEST_IDLE_S seconds
(300). Sockets of the same machine (AF_UNIX) that the C library asks for users and names are none.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parent.parent
IDLE_S = float(os.environ.get("EDGELLM_TEST_IDLE_S", "300"))
_CONNECT = re.compile(r"connect\((?!.*AF_UNIX)")


@pytest.fixture
def strace(tmp_path: Path) -> tuple[str, ...]:
    """The command to run something under, which notes every connect() of it and its children."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("NOT TESTED: strace is not installed")
    # With seccomp-bpf, other system calls are not slowed down.
    command = (program, "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: strace may not trace here")
    return (*command, "-o", str(tmp_path / "trace"))


def connections(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "trace").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if _CONNECT.search(line)]


@contextmanager
def idling(command: tuple[str, ...], cwd: Path) -> Iterator[None]:
    """The command line, waiting for a line that never comes."""
    with subprocess.Popen(
        [*command],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
            assert process.poll() is None, "it did not wait"
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # strace alone would not pass it on


def test_the_trace_sees_connections(strace, tmp_path):
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 1))"
    subprocess.run([*strace, sys.executable, "-c", code], check=True)
    assert len(connections(tmp_path)) == 1


def test_the_tests_of_the_command_line_connect_to_nothing(strace, tmp_path):
    command = [*strace, sys.executable, "-m", "pytest", "-q", "-m", "not slow", "tests/cli"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:]
    assert connections(tmp_path) == []


@pytest.mark.parametrize("verb", [("serve", "demo", "--port", "0"), ("chat", "demo")])
def test_who_waits_connects_to_nothing(strace, tmp_path, verb):
    with idling((*strace, sys.executable, "-m", "edgellm", *verb), tmp_path):
        code = f"import time; time.sleep({IDLE_S})"
        subprocess.run([sys.executable, "-c", code], check=True)
    assert connections(tmp_path) == []
