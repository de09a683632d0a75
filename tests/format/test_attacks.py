"""Every spoiled file is refused, by both readers, with the code of its defect."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm import errors
from edgellm.edgefile import verify
from format.attack_files import TABLE, build, load_table, seal
from format.make_attacks import SEED, base_file, table

ATTACKS = load_table()
ERRORS_INC = Path(__file__).parents[2] / "native" / "src" / "base" / "errors.inc"


def python_code(path: Path) -> str:
    return code_of(verify, path)


def native_code(native: Any, path: Path) -> str:
    return code_of(native.verify_file, path)


def code_of(check: Callable[[Path], object], path: Path) -> str:
    """The code of the defect; the message must say which file it is about."""
    try:
        check(path)
    except errors.EdgeError as error:
        return error.code if str(path) in str(error) else f"{error.code} without the path"
    return "ok"


@pytest.fixture
def native() -> Any:
    return pytest.importorskip("edgellm._native", reason="the native module is not built")


def ids(case: dict[str, Any]) -> str:
    return str(case["name"]).replace(" ", "_")


def test_the_table_and_the_seed_are_what_the_writer_writes_today():
    assert json.loads(TABLE.read_text(encoding="ascii")) == json.loads(json.dumps(table()))
    assert SEED.read_bytes() == base_file()
    assert build(ATTACKS, {}) == base_file()


def test_the_unspoiled_file_passes(tmp_path: Path):
    path = tmp_path / "base.edge"
    path.write_bytes(build(ATTACKS, {}))
    assert python_code(path) == "ok"


@pytest.mark.parametrize("case", ATTACKS.cases, ids=ids)
def test_a_spoiled_file_is_refused_with_its_code(case: dict[str, Any], tmp_path: Path):
    path = tmp_path / "spoiled.edge"
    path.write_bytes(build(ATTACKS, case))
    assert python_code(path) == case["code"]


def test_the_native_reader_refuses_every_one_with_the_same_code(tmp_path: Path, native: Any):
    path = tmp_path / "spoiled.edge"
    got = {}
    for case in ATTACKS.cases:
        path.write_bytes(build(ATTACKS, case))
        got[case["name"]] = native_code(native, path)
    assert got == {case["name"]: case["code"] for case in ATTACKS.cases}


def test_both_readers_agree_on_randomly_edited_headers(tmp_path: Path, native: Any):
    """Differential: the same verdict for 1,500 headers that are damaged and then resealed.

    Spec and source are left alone: to the native container they are opaque text.
    """
    opaque = r'"edgellm\.(?:spec|source)":"(?:[^"\\]|\\.)*"'
    fixed = {i for m in re.finditer(opaque, ATTACKS.header) for i in range(*m.span())}
    free = [i for i in range(len(ATTACKS.header)) if i not in fixed]
    assert len(fixed) > 100
    rng = random.Random(1)
    path = tmp_path / "random.edge"
    differences = []
    for i in range(1500):
        text = list(ATTACKS.header)
        for _ in range(rng.randint(1, 3)):
            syntax = rng.random() < 0.7
            text[rng.choice(free)] = (
                rng.choice('0123456789",:[]{}\\-e.') if syntax else chr(rng.randrange(128))
            )
        edited = "".join(text)
        path.write_bytes(seal(edited, 16384) + ATTACKS.data)
        codes = python_code(path), native_code(native, path)
        if codes[0] != codes[1]:
            differences.append((i, edited, codes))
    assert differences == []


def test_every_code_of_the_python_reader_is_in_the_native_list():
    text = ERRORS_INC.read_text(encoding="ascii")
    rows = re.findall(r'^EDGE_ERROR\(\w+, (\w+), "(\w+)"\)', text, re.MULTILINE)
    listed = {code: python_class for python_class, code in rows}
    for code, python_class in listed.items():
        assert issubclass(getattr(errors, python_class), errors.EdgeError), code
    package = ERRORS_INC.parents[3] / "edgellm"
    names = ("edgefile.py", "edgeheader.py", "strict_json.py")
    source = "".join((package / name).read_text(encoding="utf-8") for name in names)
    raised = re.findall(r'(\w+Error)\((?:[^()]|\([^()]*\))*?"([a-z_]+)",?\s*\)', source)
    assert len(raised) > 40
    for python_class, code in raised:
        assert listed.get(code) == python_class, code
