"""The wheel in dist/ (`make wheels`) installs and answers without compiler or index."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEPENDENCIES = ["numpy", "jinja2", "typer", "platformdirs", "filelock"]


OLDEST_GLIBC = (2, 28)


def newest_wheel(machine: str) -> Path:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheels = sorted(
        (ROOT / "dist").glob(f"edgellm-*-{tag}-*_{machine}.whl"),
        key=lambda path: path.stat().st_mtime,
    )
    if not wheels:
        pytest.skip(f"no {tag} wheel for {machine} in dist/: run `make wheels`")
    return wheels[-1]


@pytest.fixture(scope="module")
def wheel() -> Path:
    return newest_wheel(platform.machine())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_wheel_needs_no_newer_glibc_and_no_cxx_library(machine: str) -> None:
    wheel = newest_wheel(machine)
    tags = re.findall(rf"manylinux_(\d+)_(\d+)_{machine}", wheel.name)
    assert any((int(major), int(minor)) <= OLDEST_GLIBC for major, minor in tags), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".so")]
        contents = [archive.read(name) for name in modules]
    assert len(modules) == 3  # with the library that drives NPUs
    versions = {(2, int(minor)) for minor in re.findall(rb"GLIBC_2\.(\d+)", b"".join(contents))}
    assert max(versions) <= OLDEST_GLIBC
    for name, content in zip(modules, contents, strict=True):
        assert b"libstdc++.so" not in content, name


@pytest.mark.slow
def test_the_wheel_installs_without_compiler_or_index_and_answers(wheel, tmp_path):
    house, venv = tmp_path / "wheelhouse", tmp_path / "venv"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    download = [*pip, "download", "-q", "--only-binary", ":all:", "-d", str(house), *DEPENDENCIES]
    if subprocess.run(download).returncode != 0:
        pytest.skip("the dependencies cannot be downloaded: no package index reachable")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    # Nothing but the environment on the PATH: no compiler, no make.
    bare = {"HOME": str(tmp_path), "PATH": str(venv / "bin")}
    offline = ["--no-index", "--only-binary", ":all:", "--find-links", str(house)]
    install = [str(venv / "bin" / "pip"), "install", "-q", *offline, str(wheel)]
    subprocess.run(install, env=bare, check=True)
    command = [str(venv / "bin" / "edgellm"), "run", "demo", "Once upon a time", "--max-tokens"]
    done = subprocess.run(
        [*command, "12"], env=bare, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert len(done.stdout.split()) > 5
    plan = [str(venv / "bin" / "edgellm"), "plan", "demo", "--device", "raspberry-pi-5"]
    done = subprocess.run(plan, env=bare, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "tokens/s" in done.stdout
