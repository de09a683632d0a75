"""A processor older than the native module is an error with a name, not an illegal instruction."""

from __future__ import annotations

import platform
import shutil
import sys

import pytest

from command_line import edgellm, edgellm_after, failure_of
from edgellm.cli.exits import Exit
from edgellm.cpu import missing_features

OLD = "import edgellm.cpu\nedgellm.cpu.missing_features = lambda: ['SSE4.2', 'POPCNT']"


def test_this_processor_lacks_nothing():
    assert missing_features() == []


@pytest.mark.parametrize(
    "verb", [("run", "demo", "hi"), ("verify", "demo"), ("bench", "demo"), ("doctor",)]
)
def test_every_verb_that_computes_refuses_an_old_processor(verb, tmp_path):
    run = edgellm_after(OLD, *verb, cwd=tmp_path)
    assert run.returncode == Exit.UNSUPPORTED, run.stderr
    assert "this processor lacks SSE4.2, POPCNT" in run.stderr + run.stdout
    assert "Traceback" not in run.stderr


def test_a_header_can_be_read_on_an_old_processor(tmp_path):
    assert edgellm_after(OLD, "inspect", "demo", cwd=tmp_path).returncode == 0


def test_the_native_module_is_not_even_loaded(tmp_path):
    setup = (
        f"{OLD}\nimport atexit\natexit.register(lambda: print('edgellm._native' in sys.modules))"
    )
    run = edgellm_after(setup, "run", "demo", "hi", cwd=tmp_path)
    assert run.stdout == "False\n"


def test_an_incomplete_installation_says_so(tmp_path):
    setup = "sys.modules['edgellm._cpu'] = None"
    message = failure_of(edgellm_after(setup, "run", "demo", "hi", cwd=tmp_path), Exit.INTERNAL)
    assert "not complete" in message
    assert "install edgellm again" in message


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="emulates x86-64 on Linux"
)
@pytest.mark.parametrize(("cpu", "code"), [("core2duo", Exit.UNSUPPORTED), ("Nehalem", Exit.OK)])
def test_on_an_emulated_processor(cpu, code, tmp_path):
    emulator = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if emulator is None:
        pytest.skip("no qemu-x86_64 here: install package qemu-user")
    run = edgellm("run", "demo", "hi", "-n", 1, cwd=tmp_path, prefix=(emulator, "-cpu", cpu))
    assert run.returncode == code, run.stderr
    if code == Exit.UNSUPPORTED:
        assert "SSE4.2" in failure_of(run, code)
