"""Objects compiled for one instruction set define no weak symbol.

A weak symbol (an inline function that was not inlined) may be chosen by the linker for the whole
program, and then AVX code runs on a machine without AVX.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def isa_objects() -> list[Path]:
    """Of the optimised builds; a debug build inlines nothing and is never shipped."""
    builds = [ROOT / "build" / name for name in ("editable", "release", "aarch64")]
    return [
        path
        for build in builds
        for path in build.glob("CMakeFiles/edge_kernels_*.dir/**/*.o")
        if ".dir/src/kernels/" in str(path)
    ]


def weak_symbols(objects: list[Path]) -> list[str]:
    nm = shutil.which("nm")
    assert nm is not None
    command = [nm, "--print-file-name", "--defined-only", *map(str, objects)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if line.split()[-2] in ("W", "V", "u", "w", "v")]


def test_isa_objects_define_no_weak_symbol():
    objects = isa_objects()
    if not objects or shutil.which("nm") is None:
        pytest.skip("no optimised native build under build/, or no nm: run `make test`")
    assert weak_symbols(objects) == []


def test_the_check_sees_a_weak_symbol(tmp_path):
    compiler = shutil.which("c++")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("no C++ compiler or no nm on the PATH")
    source, target = tmp_path / "a.cc", tmp_path / "a.o"
    source.write_text("inline int leak(int x) { return x; }\nint (*use)(int) = &leak;\n")
    subprocess.run([compiler, "-c", str(source), "-o", str(target)], check=True)
    assert len(weak_symbols([target])) == 1
