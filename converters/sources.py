"""What a path to convert is, opened: a Hugging Face directory, or a GGUF file."""

from __future__ import annotations

from pathlib import Path

from .checkpoint import Checkpoint
from .gguf.checkpoint import GgufCheckpoint, is_gguf


def open_checkpoint(path: Path, *, without_weights: bool = False) -> Checkpoint:
    """without_weights: a directory without weights, its config.json or a GGUF file without tensors
    will do."""
    kind = GgufCheckpoint if is_gguf(path) else Checkpoint
    return kind(path, without_weights=without_weights)
