"""native/device_wheel.py, around a small library that stands in for a backend."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgellm

ROOT = Path(__file__).parent.parent


def stand_in(path: Path, glibc: str = "2.17", machine: int = 62) -> Path:
    """Bytes with an ELF header, and a symbol version in them."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine)
    path.write_bytes(header + bytes(64) + f"GLIBC_{glibc}\0cuda".encode())
    return path


def build(library: Path, folder: Path, backend: str = "cuda") -> subprocess.CompletedProcess[str]:
    script = ROOT / "native" / "device_wheel.py"
    return subprocess.run(
        [sys.executable, str(script), backend, str(library), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def built(library: Path, folder: Path, backend: str = "cuda") -> Path:
    run = build(library, folder, backend)
    assert run.returncode == 0, run.stderr
    return Path(run.stdout.strip())


@pytest.mark.parametrize("backend", ["cuda", "vulkan"])
def test_pip_puts_the_library_beside_the_module(tmp_path: Path, backend: str) -> None:
    inside = f"edgellm/libedgellm_{backend}.so"
    wheel = built(stand_in(tmp_path / "lib.so"), tmp_path / "dist", backend)
    name = f"edgellm_{backend}-{edgellm.__version__}"
    assert wheel.name == f"{name}-py3-none-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read(inside) == (tmp_path / "lib.so").read_bytes()
        info = f"{name}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert f"Requires-Dist: edgellm=={edgellm.__version__}" in metadata
        assert ("NVIDIA" in metadata) == (backend == "cuda")
        if backend == "cuda":
            assert b"NVIDIA" in archive.read(f"{info}/licenses/NOTICE-CUDA.txt")
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert [name for name in names if "dist-info" not in name] == [inside]
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    pip += ["--no-index", "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:"]
    run = subprocess.run(
        [*pip, "--target", str(target), str(wheel)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr  # which checks RECORD
    assert (target / inside).read_bytes() == (tmp_path / "lib.so").read_bytes()


def test_the_same_library_gives_the_same_bytes(tmp_path: Path) -> None:
    library = stand_in(tmp_path / "lib.so")
    first, second = (built(library, tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_the_name_says_which_systems_have_its_symbols(tmp_path: Path) -> None:
    newer = build(stand_in(tmp_path / "new.so", glibc="2.34"), tmp_path)
    assert newer.returncode == 0
    assert "glibc 2.34" in newer.stderr
    assert newer.stdout.strip().endswith("manylinux_2_34_x86_64.whl")
    arm = built(stand_in(tmp_path / "arm.so", machine=183), tmp_path)
    assert arm.name.endswith("manylinux_2_28_aarch64.whl")


@pytest.mark.parametrize("content", [None, b"", b"MZ" + bytes(100), b"\x7fELF\x02\x01"])
def test_what_is_no_library_is_refused(tmp_path: Path, content: bytes | None) -> None:
    library = tmp_path / "lib.so"
    if content is not None:
        library.write_bytes(content)
    run = build(library, tmp_path / "dist")
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert "make cuda" in run.stderr
    assert not list(tmp_path.glob("dist/*"))
