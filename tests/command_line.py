"""Runs the command line as a user does: a process, its streams, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def edgellm(
    *arguments: object,
    cwd: Path,
    stdin: str = "",
    env: dict[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """`env` is added to ours; `prefix` is a command to run it under."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "edgellm", *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )


def edgellm_after(
    setup: str, *arguments: object, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in a process that has run `setup`, Python code, before."""
    script = (
        f"import sys\n{setup}\nfrom edgellm.cli import run_command_line\n"
        "sys.exit(run_command_line(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )


def data_of(run: subprocess.CompletedProcess[str], command: str) -> dict[str, Any]:
    """The data of a --json document that a verb printed."""
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["schema_version"] == 1
    assert document["command"] == command
    return document["data"]


def failure_of(run: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of a verb that failed as it should."""
    assert run.returncode == code, (run.returncode, run.stderr)
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    return lines[0]
