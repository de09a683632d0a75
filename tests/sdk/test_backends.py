"""Backends in libraries of their own: what a machine without one is told."""

from __future__ import annotations

import pytest

import edgellm
from command_line import edgellm as edgellm_process
from edgellm.cli.exits import Exit

LIBRARIES = {
    "cuda": "/nowhere/libedgellm_cuda.so",
    "metal": "/nowhere/libedgellm_metal.dylib",
    "vulkan": "/nowhere/libedgellm_vulkan.so",
}
VARIABLES = {f"EDGELLM_{name.upper()}_LIBRARY": path for name, path in LIBRARIES.items()}


@pytest.mark.parametrize("backend", LIBRARIES)
def test_a_device_without_its_library_is_a_device_error(demo_path, monkeypatch, backend):
    for variable, path in VARIABLES.items():
        monkeypatch.setenv(variable, path)
    with pytest.raises(edgellm.DeviceError, match=LIBRARIES[backend]) as refused:
        edgellm.load(demo_path, backend=backend)
    assert refused.value.code == "device_unavailable"
    assert "backend 'cpu'" in refused.value.message


def test_a_backend_that_nobody_knows_names_the_others(demo_path):
    with pytest.raises(edgellm.UnsupportedError, match="cpu, cuda, cuda-fp8, metal, vulkan"):
        edgellm.load(demo_path, backend="abacus")


@pytest.mark.parametrize(
    "command",
    [("run", "demo", "Once"), ("bench", "demo", "--prefill", 1, "--decode", 1)],
    ids=lambda command: command[0],
)
def test_verbs_pass_the_backend_on(tmp_path, command):
    run = edgellm_process(*command, "--backend", "cuda", cwd=tmp_path, env=VARIABLES)
    assert run.returncode == Exit.INTERNAL
    assert run.stdout == ""
    assert LIBRARIES["cuda"] in run.stderr
    assert "Traceback" not in run.stderr
    run = edgellm_process(*command, "--backend", "abacus", cwd=tmp_path)
    assert run.returncode == Exit.UNSUPPORTED
    assert "cpu, cuda, cuda-fp8, metal, vulkan" in run.stderr
