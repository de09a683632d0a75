"""What an installation puts into site-packages, editable or not."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed() -> list[importlib.metadata.PackagePath]:
    try:
        files = importlib.metadata.files("edgellm")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("edgellm is importable but not installed by pip: run `make test`")
    assert files
    return files


def test_exactly_one_top_level_package_is_installed(installed):
    # pip compiles the import hook of an editable installation into a __pycache__ of its own.
    tops = {path.parts[0] for path in installed} - {"..", "__pycache__"}
    ours = {top for top in tops if ".dist-info" not in top and "_editable" not in top}
    assert ours == {"edgellm"}


def test_the_licence_of_the_weights_travels_with_the_package(installed):
    names = {path.name for path in installed if ".dist-info" in path.parts[0]}
    assert {"LICENSE", "LICENSE-WEIGHTS.md"} <= names


def test_the_console_command_is_registered():
    scripts = importlib.metadata.entry_points(group="console_scripts", name="edgellm")
    if not scripts:
        pytest.skip("edgellm is importable but not installed by pip: run `make test`")
    assert {script.value for script in scripts} == {"edgellm.__main__:main"}


def test_the_demo_model_and_its_papers_are_package_data():
    demo = importlib.resources.files("edgellm") / "demo"
    names = {entry.name for entry in demo.iterdir()}
    assert {"demo.edge", "MODEL_CARD.md", "LICENSE-WEIGHTS.md"} <= names


def test_the_native_module_stays_under_3_mb():
    from edgellm import _native

    assert Path(_native.__file__).stat().st_size <= 3_000_000
