"""`edgellm chat` as a process: pipes, poor terminals, no textual, wrong arguments."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from cli.test_terminals import POSIX_ONLY
from command_line import data_of, edgellm, edgellm_after, failure_of
from edgellm.cli.exits import Exit

QUESTIONS = "How do I show the current date?\n\nAnd the time?\n"
GREEDY = ("--temperature", 0, "-n", 12)


def test_a_pipe_gets_replies_on_stdout_and_the_rest_on_stderr(tmp_path):
    run = edgellm("chat", "demo", *GREEDY, cwd=tmp_path, stdin=QUESTIONS)
    assert run.returncode == Exit.OK, run.stderr
    replies = run.stdout.splitlines()
    assert len(replies) == 2
    assert all(len(reply) > 4 for reply in replies)
    assert "no screen, because stdin is not a terminal" in run.stderr
    assert run.stderr.count("tokens/s") == 2
    plain = edgellm("chat", "demo", *GREEDY, "--plain", cwd=tmp_path, stdin=QUESTIONS)
    assert plain.stdout == run.stdout
    assert "no screen" not in plain.stderr


def test_no_model_is_the_demo_and_says_so(tmp_path):
    run = edgellm("chat", *GREEDY, cwd=tmp_path, stdin="Hi\n")
    assert run.returncode == Exit.OK, run.stderr
    assert "built-in demo" in run.stderr
    assert "edgellm chat MODEL" in run.stderr


def test_no_input_is_no_error(tmp_path):
    run = edgellm("chat", "demo", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (Exit.OK, "")


def test_json_is_the_whole_chat_and_nothing_else(tmp_path):
    given = ("chat", "demo", *GREEDY, "--json")
    data = data_of(edgellm(*given, cwd=tmp_path, stdin=QUESTIONS), "chat")
    assert data["model"] == "demo"
    assert [turn["message"] for turn in data["turns"]] == [
        QUESTIONS.splitlines()[i] for i in (0, 2)
    ]
    assert data["turns"][1]["stats"]["reused_tokens"] > 0


def test_a_chat_goes_on_from_its_file(tmp_path):
    first, second = (text + "\n" for text in QUESTIONS.splitlines() if text)
    given = ("chat", "demo", *GREEDY, "--json", "--session", "saved")
    edgellm(*given, cwd=tmp_path, stdin=first)
    after = data_of(edgellm(*given, cwd=tmp_path, stdin=second), "chat")["turns"]
    whole = data_of(edgellm(*given[:-2], cwd=tmp_path, stdin=QUESTIONS), "chat")["turns"]
    assert after[0]["text"] == whole[1]["text"]
    assert after[0]["stats"]["reused_from"] == "disk"
    run = edgellm("chat", "demo", "--session", "saved", "--system", "Be short.", cwd=tmp_path)
    assert "leave them out" in failure_of(run, Exit.USAGE)


def test_it_says_what_run_says_to_the_same_question(tmp_path):
    question = "How do I show the current date?"
    run = edgellm("run", "demo", question, "--chat", "-n", 12, cwd=tmp_path)
    chat = edgellm("chat", "demo", *GREEDY, "--min-p", 0, cwd=tmp_path, stdin=question + "\n")
    assert chat.stdout == run.stdout


def test_without_textual_there_is_a_hint(tmp_path):
    setup = "sys.modules['textual'] = None"
    run = edgellm_after(setup, "chat", "demo", "-n", 3, cwd=tmp_path)
    assert run.returncode == Exit.OK, run.stderr
    assert "pip install 'edgellm[tui]'" in run.stderr
    assert "Traceback" not in run.stderr


@POSIX_ONLY
def test_a_dumb_terminal_of_40_by_12_gets_line_mode(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", "chat", "demo", "-n", "4"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb", "LC_ALL": "C", "COLUMNS": "40", "LINES": "12"},
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # Linux: the other side is closed
        for keys, awaited in ((b"Hello\n", b"> "), (b"\x04", b"reused")):
            while awaited not in written:
                written += os.read(ours, 65536)
            os.write(ours, keys)
        while chunk := os.read(ours, 65536):
            written += chunk
    os.close(ours)
    assert process.wait(timeout=60) == Exit.OK, written
    assert b"no screen, because TERM=dumb" in written
    assert b"\x1b" not in written


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("missing.edge",), Exit.BAD_INPUT, "missing.edge"),
        (("demo", "--policy", "maybe"), Exit.USAGE, "error or drop_oldest_turns"),
        (("demo", "--temperature", "-1"), Exit.USAGE, "temperature must be in 0..100"),
        (("demo", "--logit-bias", "x"), Exit.USAGE, "ID=BIAS"),
        (("demo", "--context", "0"), Exit.USAGE, "n_ctx must be at least 1"),
        (("demo", "--template", "missing.jinja"), Exit.BAD_INPUT, "missing.jinja"),
        (("demo", "--max-tokens", "0"), Exit.USAGE, "max_tokens must be at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(arguments, code, words, tmp_path):
    assert words in failure_of(edgellm("chat", *arguments, cwd=tmp_path), code)


def test_messages_that_are_no_text_are_refused(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "edgellm", "chat", "demo", "--plain"],
        cwd=tmp_path,
        input=b"\xff\xfe\n",
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        check=False,
    )
    assert run.returncode == Exit.USAGE
    assert b"the messages on stdin are not utf-8 text" in run.stderr
