"""The C interface: its status numbers, and the example as a stranger builds it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "native"


@pytest.fixture(scope="module")
def c_codes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("c_codes", NATIVE / "tools" / "c_codes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_status_numbers_are_up_to_date(c_codes):
    assert c_codes.main(["--check"]) == 0


def test_numbers_stay_when_errors_come_go_and_move(c_codes):
    numbers = {"a": 1, "gone": 2, "b": 3}
    assert c_codes.with_new(["b", "new", "a"], numbers) == {"a": 1, "gone": 2, "b": 3, "new": 4}
    assert c_codes.numbers_of(c_codes.header_text(numbers)) == numbers


def test_numbers_of_the_first_version_are_what_they_were(c_codes):
    numbers = c_codes.numbers_of(c_codes.HEADER.read_text(encoding="ascii"))
    kept = {"file_not_found": 1, "buffer_too_small": 47, "cancelled": 52}
    assert {name: numbers[name] for name in kept} == kept
    assert len(set(numbers.values())) == len(numbers)


@pytest.mark.parametrize("language", ["c11", "c++11"])
def test_the_header_stands_alone(language, tmp_path):
    compiler = shutil.which("c++" if "++" in language else "cc")
    if compiler is None:
        pytest.skip("no C or C++ compiler on the PATH")
    source = tmp_path / ("a.cc" if "++" in language else "a.c")
    source.write_text('#include "edgellm/c_api.h"\nint x = EDGELLM_ERROR_CANCELLED;\n')
    flags = [f"-std={language}", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]
    subprocess.run([compiler, *flags, f"-I{NATIVE / 'include'}", str(source)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # compiles the whole runtime
def test_the_example_runs_on_an_installed_library(tmp_path, demo_path):
    """cmake --install gives all that examples/c needs, and nothing of the build tree."""
    for tool in ("cmake", "ninja", "make", "cc", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on the PATH")
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    configure = ["cmake", "-S", str(NATIVE), "-B", str(build), "-G", "Ninja"]
    subprocess.run([*configure, "-DEDGE_BUILD_SHARED=ON", "-DCMAKE_INSTALL_LIBDIR=lib"], check=True)
    subprocess.run(["cmake", "--build", str(build)], check=True)
    subprocess.run(["cmake", "--install", str(build), "--prefix", str(prefix)], check=True)
    shutil.rmtree(build)
    assert len(list((prefix / "lib").glob("libedgellm_npu.*"))) == 1
    example = tmp_path / "c"
    shutil.copytree(ROOT / "examples" / "c", example, ignore=shutil.ignore_patterns("complete"))
    subprocess.run(["make", "-C", str(example), f"PREFIX={prefix}"], check=True)
    program = [str(example / "complete"), str(demo_path), "Once upon a time", "12"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) > 5
    missing = subprocess.run([program[0], "/no/such.edge"], capture_output=True, text=True)
    assert missing.returncode == 1
    assert "file_not_found" in missing.stderr
