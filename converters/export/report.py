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
class W8A8Quality:
    """How a W8A8 model compares, on tokens that it was not calibrated on.

    kl_nats, top1: mean KL(float32 || W8A8) and share of equal top tokens, computed in torch.
    onnxruntime_nmse: sum (a - b)^2 / sum b^2 of the logits of one window, onnxruntime's against
    torch's of the same W8A8 model; None without onnxruntime.
    """

    n_calibration_tokens: int
    n_held_out_tokens: int
    kl_nats: float
    top1: float
    onnxruntime_nmse: float | None


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
    quality: W8A8Quality | None = None

    @property
    def worst(self) -> ExportedMatrix:
        """The matrix with the largest relative error."""
        return max(self.matrices, key=lambda matrix: matrix.rel_rms_error)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}
