"""The command line in this process: for tests that need many runs, and no process of their own."""

from __future__ import annotations

import subprocess

import pytest

from edgellm.cli import run_command_line


class CommandLine:
    """Call it as `command_line.edgellm()`; the answer is of the same type."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        self._capsys.readouterr()
        texts = [str(argument) for argument in arguments]
        code = run_command_line(texts)
        said = self._capsys.readouterr()
        return subprocess.CompletedProcess(texts, code, said.out, said.err)
