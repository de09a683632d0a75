"""What `make` says on a machine that lacks something: the package to install, in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "find", "rm", "touch", "printf", "cat")
FAKE_PYTHON = """#!/bin/sh
# A Python that fails one of the questions of the Makefile, the one with the word {word}.
case "$*" in *{word}*) exit 1;; -V) echo "Python 3.9.9"; exit 0;; esac
exec {python} "$@"
"""

pytestmark = [
    pytest.mark.skipif(shutil.which("make") is None, reason="no make here"),
    pytest.mark.skipif(os.name != "posix", reason="the Makefile is for POSIX systems"),
]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH of its own, with what the Makefile's checks use and no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None, name
        (folder / name).symlink_to(found)
    return folder


def make_venv(tools: Path, python: str) -> str:
    """The one line that making the environment fails with."""
    make = shutil.which("make")
    assert make is not None
    venv = tools.parent / "venv"
    run = subprocess.run(
        [make, "--no-print-directory", f"VENV={venv}", f"PYTHON={python}", f"{venv}/bin/python"],
        cwd=ROOT,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode != 0, run.stdout
    assert not venv.exists()
    lines = [line for line in run.stdout.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, run.stdout + run.stderr
    return lines[0]


def fake_python(tools: Path, word: str) -> str:
    path = tools / "fakepython"
    path.write_text(FAKE_PYTHON.format(word=word, python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_no_compiler_names_the_package(tools):
    line = make_venv(tools, sys.executable)
    assert "no C++20 compiler" in line
    assert "install package g++" in line


def test_a_compiler_without_cxx20_is_none(tools):
    old = tools / "c++"
    old.write_text("#!/bin/sh\ncase $* in *c++20*) exit 1;; esac\n", encoding="utf-8")
    old.chmod(0o755)
    assert "no C++20 compiler" in make_venv(tools, sys.executable)


def test_no_python_names_the_package(tools):
    assert "install Python 3.11 or newer" in make_venv(tools, "python3")


def test_an_old_python_names_the_package_and_the_way_to_use_it(tools):
    line = make_venv(tools, fake_python(tools, "version_info"))
    assert "Python 3.9.9" in line
    assert "needs 3.11 or newer" in line
    assert "make PYTHON=python3.11" in line


def test_no_venv_module_names_the_package(tools):
    line = make_venv(tools, fake_python(tools, "ensurepip"))
    assert "install package python3-venv" in line


def test_no_python_headers_names_the_package(tools):
    assert "install package python3-dev" in make_venv(tools, fake_python(tools, "sysconfig"))
