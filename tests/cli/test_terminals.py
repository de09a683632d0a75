"""Poor terminals and odd outputs: dumb, tiny, ASCII only, closed, full, unreadable input."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import edgellm, failure_of
from edgellm.cli.exits import Exit

POSIX_ONLY = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are a POSIX matter")
PLAIN = {"TERM": "dumb", "LANG": "C", "LC_ALL": "C", "LANGUAGE": ""}
ASCII = {"PYTHONIOENCODING": "ascii:strict"}


def on_a_terminal(*arguments: object, cwd: Path, rows: int = 12, columns: int = 40) -> bytes:
    """Everything a verb writes when all its streams are a dumb terminal of that size."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", *map(str, arguments)],
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | PLAIN,
    )
    os.close(theirs)
    written = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    assert process.wait(timeout=10) == 0, written
    return written


@POSIX_ONLY
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "demo", "The sun", "-n", "4"),
        ("run", "--help"),
        ("inspect", "demo"),
        ("doctor", "demo"),
    ],
)
def test_a_dumb_terminal_of_40_by_12_gets_plain_text(arguments, tmp_path):
    written = on_a_terminal(*arguments, cwd=tmp_path)
    assert written.strip()
    assert b"\x1b" not in written
    assert b"Traceback" not in written


@POSIX_ONLY
def test_convert_on_a_dumb_terminal_shows_no_bar(tiny_checkpoint, tmp_path):
    written = on_a_terminal("convert", tiny_checkpoint, "t.edge", cwd=tmp_path)
    assert b"bits each" in written
    assert b"\x1b" not in written
    assert (tmp_path / "t.edge").exists()


@POSIX_ONLY
def test_help_fits_a_terminal_of_40_columns(tmp_path):
    written = on_a_terminal("run", "--help", cwd=tmp_path).decode()
    too_long = [line for line in written.splitlines() if len(line.rstrip()) > 80]
    assert too_long == []


@pytest.mark.parametrize("environment", [ASCII, PLAIN, PLAIN | ASCII])
def test_text_that_the_terminal_cannot_encode_is_escaped(environment, tiny_edge, tmp_path):
    shutil.copy(tiny_edge, tmp_path / "märchen.edge")
    run = edgellm("inspect", "märchen.edge", cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    shown = "m\\xe4rchen.edge" if "PYTHONIOENCODING" in environment else "märchen.edge"
    assert shown in run.stdout
    missing = edgellm("verify", "naïve.edge", cwd=tmp_path, env=environment)
    assert "ve.edge: " in failure_of(missing, Exit.BAD_INPUT)


def test_random_bytes_of_a_model_reach_an_ascii_terminal(tiny_edge, tmp_path):
    given = ("run", tiny_edge, "Hi", "-n", 60, "--temperature", 2)
    run = edgellm(*given, cwd=tmp_path, env=ASCII)
    assert run.returncode == 0, run.stderr
    assert run.stdout.isascii()
    assert "\\u" in run.stdout or "\\x" in run.stdout


def test_a_prompt_on_stdin_that_is_no_text_is_refused(tiny_edge, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "edgellm", "run", str(tiny_edge), "-"],
        cwd=tmp_path,
        input=b"\xff\xfe\x80",
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert run.returncode == Exit.USAGE
    assert run.stderr.startswith(b"error: the prompt on stdin is not utf-8 text")


@POSIX_ONLY
@pytest.mark.parametrize(
    "arguments", [("--version",), ("--help",), ("run", "demo", "hi", "-n", "3"), ("doctor",)]
)
def test_a_closed_output_ends_quietly(arguments, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "edgellm", *arguments],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (run.returncode, run.stderr) == (Exit.BROKEN_PIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("inspect", "demo"), ("run", "demo", "hi", "-n", "3")])
def test_output_to_a_full_disk_is_one_line(arguments, tmp_path):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        run = subprocess.run(
            [sys.executable, "-m", "edgellm", *arguments],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (run.returncode, run.stderr) == (Exit.BAD_INPUT, "error: No space left on device\n")


@POSIX_ONLY
@pytest.mark.parametrize("verb", [("run", "secret.edge", "hi"), ("inspect", "secret.edge")])
def test_a_file_that_may_not_be_read_says_so(verb, tiny_edge, tmp_path):
    shutil.copy(tiny_edge, tmp_path / "secret.edge")
    (tmp_path / "secret.edge").chmod(0)
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:  # who may read everything, unless that capability is dropped
        if shutil.which("setpriv") is None:
            pytest.skip("root reads every file, and there is no setpriv (package util-linux)")
        prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    message = failure_of(edgellm(*verb, cwd=tmp_path, prefix=prefix), Exit.BAD_INPUT)
    assert "secret.edge" in message
    assert "Permission denied" in message


@POSIX_ONLY
@pytest.mark.parametrize("verb", [("run", "pipe.edge", "hi"), ("inspect", "pipe.edge")])
def test_a_pipe_given_as_a_model_does_not_hang(verb, tmp_path):
    os.mkfifo(tmp_path / "pipe.edge")
    message = failure_of(edgellm(*verb, cwd=tmp_path), Exit.BAD_INPUT)
    assert "not a regular file" in message


@POSIX_ONLY
def test_ctrl_c_while_a_terminal_shows_the_bar_leaves_nothing(tiny_checkpoint, tmp_path):
    """As in test_cli, by the keyboard's signal to a whole foreground process group."""
    script = """
import os, sys, time
import edgellm.converters.pipeline as pipeline
advance = pipeline._Meter.advance
def slow(self, tensor, n_weights):
    os.write(1, b"started\\n")  # past the bar, which redirects sys.stdout
    time.sleep(0.2)
    advance(self, tensor, n_weights)
pipeline._Meter.advance = slow
sys.stderr.isatty = lambda: True
from edgellm.cli import run_command_line
sys.exit(run_command_line(["convert", sys.argv[1], "t.edge"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tiny_checkpoint)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED, errors
    assert "error: interrupted\n" in errors
    assert list(tmp_path.iterdir()) == []
