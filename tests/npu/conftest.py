"""A tiny checkpoint for all tests of graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_model import write_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("npu") / "tiny")
