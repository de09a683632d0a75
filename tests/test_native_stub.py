"""`edgellm/_native.pyi`, with its parts, and the compiled module say the same."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import edgellm
from edgellm import errors

ROOT = Path(__file__).parent.parent
STUBS = sorted((ROOT / "edgellm").glob("_native*.pyi"))


@pytest.fixture(scope="module")
def native() -> ModuleType:
    from edgellm import _native

    return _native


def statements() -> list[ast.stmt]:
    return [node for path in STUBS for node in ast.parse(path.read_text(encoding="utf-8")).body]


def stub_names() -> dict[str, set[str]]:
    """Top-level names of the stub; for classes, their public members. TypedDicts left out."""
    names: dict[str, set[str]] = {}
    for node in statements():
        if isinstance(node, ast.FunctionDef):
            names[node.name] = set()
        elif isinstance(node, ast.ClassDef):
            if any(isinstance(b, ast.Name) and b.id == "TypedDict" for b in node.bases):
                continue
            members = {m.name for m in node.body if isinstance(m, ast.FunctionDef)}
            names[node.name] = members - {"__init__"}
    return names


def arguments_of(doc: str) -> list[str]:
    """Argument names in the first line of a pybind11 docstring, self left out."""
    inside = doc[doc.index("(") + 1 :].splitlines()[0]
    return [name for name in re.findall(r"(\w+): ", inside) if name != "self"]


def test_the_module_and_its_stub_have_the_same_names(native):
    stub = stub_names()
    real = {name for name in dir(native) if not name.startswith("_")}
    assert real == set(stub)
    for name, members in stub.items():
        value = getattr(native, name)
        if inspect.isclass(value):
            assert {m for m in vars(value) if not m.startswith("_")} == members, name


def test_functions_take_the_arguments_of_the_stub(native):
    functions = [node for node in statements() if isinstance(node, ast.FunctionDef)]
    assert functions
    for node in functions:
        expected = [a.arg for a in node.args.args + node.args.kwonlyargs]
        doc = getattr(native, node.name).__doc__
        assert doc is not None, node.name
        assert arguments_of(doc) == expected, node.name


def test_every_native_error_has_its_class(native):
    table = native.error_table()
    assert len(table) > 40
    for code, class_name in table:
        if class_name:
            assert issubclass(getattr(errors, class_name), edgellm.EdgeError), code


def test_native_and_python_agree_on_the_formats(native):
    from edgellm.edgeheader import FORMATS

    assert {name: tuple(sizes) for name, *sizes in native.format_table()} == FORMATS


def test_the_module_has_the_version_of_the_package(native):
    assert native.version() == edgellm.__version__
