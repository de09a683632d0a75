"""Where `edgellm run` takes its prompt from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import data_of
from command_line import edgellm as run_edgellm
from edgellm.cli.prompt import whole_prompt
from edgellm.errors import FormatError, InvalidArgumentError


def test_parts_come_in_order_with_a_line_between(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("one\n", encoding="utf-8")
    second.write_text("two", encoding="utf-8")
    assert whole_prompt("three", [first, second], reads_pipe=False) == "one\n\ntwo\n\nthree"
    assert whole_prompt(None, [first], reads_pipe=False) == "one\n"
    monkeypatch.chdir(tmp_path)
    assert whole_prompt("@a", [], reads_pipe=False) == "one\n"
    assert whole_prompt("@@a", [], reads_pipe=False) == "@a"
    assert whole_prompt("@", [], reads_pipe=False) == "@"
    with pytest.raises(FormatError, match="missing: no such file"):
        whole_prompt("@missing", [], reads_pipe=False)
    first.write_bytes(b"ok\xff")
    with pytest.raises(InvalidArgumentError, match="not UTF-8 at byte 2"):
        whole_prompt(None, [first], reads_pipe=False)
    with pytest.raises(InvalidArgumentError, match="there is no prompt"):
        whole_prompt(None, [], reads_pipe=False)


def test_a_pipe_is_read_with_the_model_as_an_option(tiny_edge, tmp_path: Path):
    given = ("-n", 4, "--json")
    piped = run_edgellm("run", "-m", tiny_edge, "end", *given, cwd=tmp_path, stdin="begin\n")
    whole = run_edgellm("run", tiny_edge, "begin\n\nend", *given, cwd=tmp_path)
    assert data_of(piped, "run")["token_ids"] == data_of(whole, "run")["token_ids"]
    (tmp_path / "f").write_text("begin", encoding="utf-8")
    filed = run_edgellm("run", tiny_edge, "end", "-f", "f", *given, cwd=tmp_path)
    assert data_of(filed, "run")["token_ids"] == data_of(whole, "run")["token_ids"]
    two = run_edgellm("run", "-m", tiny_edge, "a", "b", *given, cwd=tmp_path)
    assert (two.returncode, "there are two" in two.stderr) == (2, True)
    command = [sys.executable, "-m", "edgellm", "run", "-m", str(tiny_edge), *map(str, given)]
    nothing = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert nothing.returncode == 2
    assert "there is no prompt" in nothing.stderr
