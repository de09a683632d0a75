"""The guard of instruction counts sees a count that moved, and compares only like with like."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guard", ROOT / "benchmarks" / "guard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guard"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def doctored(counts, name: str, factor: float):
    changed = {**counts.instructions, name: round(counts.instructions[name] * factor)}
    return replace(counts, instructions=changed)


def test_the_committed_counts_cover_every_case_and_agree_with_themselves(guard):
    committed = guard.read(guard.COUNTS)
    assert set(committed.instructions) == {case.name for case in guard.cases()}
    assert all(n > 0 for n in committed.instructions.values())
    assert guard.verdict(committed, committed) == 0


@pytest.mark.parametrize("factor", [1.03, 0.97, 2.0])
def test_a_doctored_count_fails(guard, factor, capsys):
    now = guard.read(guard.COUNTS)
    name = "avx2 E4_16 rows=16"
    assert guard.verdict(doctored(now, name, factor), now) == 1
    assert name in capsys.readouterr().err


def test_a_count_within_the_tolerance_holds(guard):
    now = guard.read(guard.COUNTS)
    assert guard.verdict(doctored(now, "avx2 E4_16 rows=16", 1.015), now) == 0


@pytest.mark.parametrize("side", ["committed", "measured"])
def test_a_case_that_one_side_lacks_fails(guard, side):
    full = guard.read(guard.COUNTS)
    less = replace(full, instructions=dict(list(full.instructions.items())[1:]))
    pair = (less, full) if side == "committed" else (full, less)
    assert guard.verdict(*pair) == 1


def test_counts_of_another_compiler_are_not_compared_and_it_says_so(
    guard, monkeypatch, tmp_path, capsys
):
    program = tmp_path / "edge_kernels"
    program.touch()
    monkeypatch.setattr(guard, "require", lambda path: None)
    monkeypatch.setattr(guard, "compiler_of", lambda path: "clang 99")
    monkeypatch.setattr(guard, "measure", lambda path: pytest.fail("must not be measured"))
    assert guard.run(program, write=False) == 0
    err = capsys.readouterr().err
    assert "NOT COMPARED" in err
    assert "clang 99" in err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"compiler": "x", "instructions": {"a": null}}'])
def test_a_broken_file_is_a_typed_error(guard, tmp_path, text):
    path = tmp_path / "counts.json"
    path.write_text(text)
    with pytest.raises(guard.CountError, match=r"counts\.json"):
        guard.read(path)


def test_a_program_that_is_not_there_is_a_typed_error(guard, monkeypatch, tmp_path):
    monkeypatch.setattr(guard.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(guard.CountError, match="build the target"):
        guard.require(tmp_path / "edge_kernels")
    monkeypatch.setattr(guard.shutil, "which", lambda name: None)
    with pytest.raises(guard.CountError, match="valgrind"):
        guard.require(tmp_path / "edge_kernels")
