"""What an export did: sizes, errors per matrix, and what was kept as it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExportedMatrix:
    """A matrix stored in fewer bits. name: as in the checkpoint."""

    name: str
    format: str
    rel_rms_error: float  # sqrt(sum (w - w')^2 / sum w^2), over all weights


@dataclass(frozen=True)
class ExportReport:
    """The result of export(). n_bytes: of all files written."""

    path: Path
    kind: str
    n_weights: int
    n_bytes: int
    matrices: tuple[ExportedMatrix, ...]
    warnings: tuple[str, ...]
    seconds: float

    @property
    def worst(self) -> ExportedMatrix:
        """The matrix with the largest relative error."""
        return max(self.matrices, key=lambda matrix: matrix.rel_rms_error)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}
