"""Models for other programs: FP8 checkpoints, and W8A8 graphs for onnxruntime.

whole.py makes outputs appear whole or not at all. torch and onnx are imported by what needs them,
on first use.
"""

from __future__ import annotations

from pathlib import Path

from edgellm.errors import InvalidArgumentError

from ..report import ProgressFn
from .fp8_checkpoint import FP8_KINDS, export_fp8
from .report import ExportedMatrix, ExportReport

KINDS = (*FP8_KINDS,)


def export(
    src: Path,
    out: Path,
    kind: str,
    *,
    progress: ProgressFn | None = None,
) -> ExportReport:
    """Writes checkpoint `src` to `out` as one of KINDS; `out` must not exist yet.

    An exception of `progress` cancels.
    """
    if kind not in KINDS:
        raise InvalidArgumentError(
            f"kind '{kind}' is not known (known: {', '.join(KINDS)})", code="invalid_argument"
        )
    return export_fp8(Path(src), Path(out), kind, progress=progress)


__all__ = ["KINDS", "ExportReport", "ExportedMatrix", "export"]
