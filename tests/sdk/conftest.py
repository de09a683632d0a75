"""`fake`: the SDK on top of the scripted native module; `model`: one loaded from it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import edgellm


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "fake_native", Path(__file__).with_name("fake_native.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "edgellm._native", module)
    monkeypatch.setattr(edgellm, "_native", module, raising=False)
    return module


@pytest.fixture
def model(fake: ModuleType) -> Iterator[edgellm.Model]:
    with edgellm.load("scripted.edge") as loaded:
        yield loaded
