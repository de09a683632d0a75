"""A tiny checkpoint for all tests of graphs, and where whole models' differences are kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from edgellm.converters.npu import Difference

from tiny_model import write_tiny_checkpoint

REPORT = "EDGELLM_NPU_REPORT"  # a file that `make nightly-npu` makes a table of
Keep = Callable[[str, str, str, Difference], None]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("npu") / "tiny")


@pytest.fixture
def measured() -> Keep:
    """Keeps what a test measured: of a model, by what ran it, with which weights."""
    start = time.process_time()

    def keep(model: str, ran_by: str, weights: str, found: Difference) -> None:
        seconds = time.process_time() - start
        row = {"model": model, "ran_by": ran_by, "weights": weights, "cpu_s": seconds}
        if REPORT in os.environ:
            with Path(os.environ[REPORT]).open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, **asdict(found)}) + "\n")

    return keep
