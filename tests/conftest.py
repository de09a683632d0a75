"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

import tiny_model

# A busy machine is no failure; in CI the same examples run every time.
settings.register_profile("edgellm", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("edgellm")

ROOT = Path(__file__).parent.parent


# A shell's background jobs start with Ctrl-C ignored, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test, nor a process that it starts, sees the models of whoever runs the tests."""
    os.environ["EDGELLM_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real checkpoints, tokenizers and texts; not part of the repository."""
    named = os.environ.get("EDGELLM_SHARED_DATA")
    directory = Path(named) if named else ROOT.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip(f"no shared data at {directory}; set EDGELLM_SHARED_DATA to a copy")
    return directory


@pytest.fixture(scope="session")
def demo_path() -> Path:
    """The built-in demo model. Part of the package: absent is a failure, not a skip."""
    from edgellm.model import resolve

    return resolve("demo")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a byte-level tokenizer, as a Hugging Face directory."""
    return tiny_model.write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_edge(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint` converted as no options ask."""
    from edgellm.converters import convert

    out = tmp_path_factory.mktemp("edge") / "tiny.edge"
    convert(tiny_checkpoint, out)
    return out
