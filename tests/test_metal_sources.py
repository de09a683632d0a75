"""That the Metal kernels are the language that Apple's compiler reads, as far as it shows here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "native"
KERNELS = sorted((NATIVE / "src" / "backends" / "metal").glob("*.metal"))
SHARED = sorted((NATIVE / "src" / "backends" / "gpu").glob("*.inl.h"))

# Address spaces, of which every pointer and reference must name one.
_SPACES = r"\b(?:EDGE_GLOBAL|EDGE_GROUP|EDGE_LOCAL|EDGE_ARGS)\s+"


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*", "", text)


def unqualified(text: str) -> list[str]:
    """Declarations of pointers and references to no address space."""
    found = []
    for line in without_comments(text).splitlines():
        if line.lstrip().startswith("#"):
            continue
        for match in re.finditer(
            r"(?:const )?\b(float|int|int8_t|uint8_t|int32_t|uint16_t|uint32_t|int64_t|[A-Z]\w+)"
            r"[*&] ?\w*",
            line,
        ):
            before = line[: match.start()]
            if not re.search(_SPACES + r"$", before):
                found.append(line.strip())
    return found


def check(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["clang++", "-xc++", "-std=c++14", "-fsyntax-only", "-Wall", "-Werror"]
    command += ["-Wno-c++17-extensions", "-Wno-unknown-attributes"]
    command += ["-Wno-unused-function", "-Wno-unused-const-variable", *options]
    command += ["-I", str(NATIVE / "tests/emulation/metal_strict"), "-I", str(NATIVE / "src")]
    return subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)


needs_clang = pytest.mark.skipif(
    shutil.which("clang++") is None, reason="NOT TESTED: address spaces of Metal; install clang"
)


@needs_clang
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_kernels_keep_address_spaces_apart(path):
    result = check(path)
    assert result.returncode == 0, result.stderr


@needs_clang
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("Column {\n  EDGE_GLOBAL const float* x;", "Column {\n  EDGE_LOCAL const float* x;"),
        ("EDGE_GROUP float* lanes) {\n  if (more", "EDGE_LOCAL float* lanes) {\n  if (more"),
        ("const float gate = args.gate", "const double gate = args.gate"),
    ],
)
def test_what_is_not_metal_is_told(tmp_path, right, wrong):
    text = (NATIVE / "src/backends/gpu/rows.inl.h").read_text()
    assert right in text
    kernel = tmp_path / "rows.metal"
    kernel.write_text('#include "backends/metal/dialect.h"\n' + text.replace(right, wrong))
    assert "error" in check(kernel).stderr


def test_every_pointer_names_its_address_space():
    assert len(SHARED) > 5
    assert {path.name: found for path in SHARED if (found := unqualified(path.read_text()))} == {}


def test_a_pointer_without_one_is_found():
    assert unqualified("EDGE_FN float f(EDGE_GROUP const float* a, float* b);") != []
    assert unqualified("EDGE_FN float f(EDGE_GROUP const float* a, EDGE_LOCAL Row& b);") == []


def test_a_kernel_source_for_every_one_of_cuda():
    """Both have those of backends/gpu, each its own matrices, and CUDA what needs f64."""
    with_kernels = [path for path in SHARED if "EDGE_KERNEL(" in path.read_text()]
    shared = {path.name.removesuffix(".inl.h") for path in with_kernels}
    assert {path.stem for path in KERNELS} - shared == {"gemm"}
    cuda = {path.stem for path in (NATIVE / "src" / "backends" / "cuda").glob("*.cu")}
    assert cuda - shared == {"gemm", "gemm_experts", "gemm_fp8", "rope", "top"}


def test_kernels_have_no_lambdas():
    """Which the language has only since its fourth version."""
    for path in SHARED:
        assert not re.search(r"\[[=&]?\]\s*[({]", without_comments(path.read_text())), path
