"""`edgellm completion`: a script that the shell itself completes with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import data_of
from command_line import edgellm as run_edgellm
from edgellm.cli import VERBS


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    run = run_edgellm("completion", "bash", cwd=tmp_path_factory.mktemp("bash"))
    assert run.returncode == 0, run.stderr
    return run.stdout


def completed(script: str, line: str, cwd: Path) -> set[str]:
    words = line.split(" ")
    setting = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({setting}); COMP_CWORD={len(words) - 1}; _edgellm; printf '%s\\n' "
    shell = shutil.which("bash")
    assert shell is not None
    run = subprocess.run(
        [shell, "-c", script + ask + '"${COMPREPLY[@]}"'],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.split())


def test_bash_completes_verbs_options_and_files(script, tmp_path):
    (tmp_path / "model.edge").touch()
    assert completed(script, "edgellm ", tmp_path) == {*VERBS, "--help", "--version"}
    assert completed(script, "edgellm se", tmp_path) == {"serve"}
    assert {"--max-tokens", "--max-memory"} <= completed(script, "edgellm run --max", tmp_path)
    assert completed(script, "edgellm serve --port", tmp_path) == {"--port"}
    assert completed(script, "edgellm run mod", tmp_path) == {"model.edge"}


def test_other_shells_and_none(tmp_path):
    fish = data_of(run_edgellm("completion", "fish", "--json", cwd=tmp_path), "completion")[
        "script"
    ]
    for verb in VERBS:
        assert f"-a {verb} -d" in fish
    assert "from serve' -l port" in fish
    zsh = run_edgellm("completion", "zsh", cwd=tmp_path).stdout
    assert zsh.startswith("#compdef edgellm\n")
    wrong = run_edgellm("completion", "cmd", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
