"""Real models, converted once per run, and opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MakeEdge = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def make_edge(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeEdge:
    """A shared model in a weight format: `make_edge("babyllama-tok105", "E4_16")`."""
    from edgellm.converters import convert

    folder = tmp_path_factory.mktemp("evaluation")

    def make(model: str, format: str) -> Path:
        out = folder / f"{model}-{format}.edge"
        if not out.exists():
            convert(shared_data / "models" / model, out, format=format)
        return out

    return make


@pytest.fixture(scope="session")
def stories(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 characters of the kind of text that babyllama was trained on."""
    text = (shared_data / "text" / "tinystories_hw_train.txt").read_text(encoding="utf-8")
    path = tmp_path_factory.mktemp("texts") / "stories.txt"
    path.write_text(text[:4000], encoding="utf-8")
    return path
