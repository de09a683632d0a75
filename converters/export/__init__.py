"""Models for other programs: FP8 checkpoints, GGUF files, and W8A8 graphs for onnxruntime.

whole.py makes outputs appear whole or not at all. torch and onnx are imported by what needs them,
on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import InvalidArgumentError

from ..calibrate import CalibrationTokens
from ..report import ProgressFn
from .fp8_checkpoint import FP8_KINDS, export_fp8
from .gguf_file import GGUF_KINDS, export_gguf
from .report import ExportedMatrix, ExportReport, W8A8Quality
from .w8a8 import W8A8_KIND, W8A8Options, export_w8a8

KINDS = (*FP8_KINDS, *GGUF_KINDS, W8A8_KIND)


def export(
    src: Path,
    out: Path,
    kind: str,
    *,
    calibration: CalibrationTokens | Sequence[Path] = (),
    w8a8: W8A8Options | None = None,
    progress: ProgressFn | None = None,
) -> ExportReport:
    """Writes checkpoint `src` to `out` as one of KINDS; `out` must not exist yet.

    calibration and w8a8 are for w8a8-onnx. An exception of `progress` cancels.
    """
    if kind not in KINDS:
        raise InvalidArgumentError(
            f"kind '{kind}' is not known (known: {', '.join(KINDS)})", code="invalid_argument"
        )
    if kind == W8A8_KIND:
        options = w8a8 or W8A8Options()
        return export_w8a8(Path(src), Path(out), calibration, options, progress=progress)
    if calibration or w8a8 is not None:
        raise InvalidArgumentError(
            f"calibration text, alpha, dynamic scales and windows are for {W8A8_KIND}, not {kind}",
            code="invalid_argument",
        )
    if kind in GGUF_KINDS:
        return export_gguf(Path(src), Path(out), kind, progress=progress)
    return export_fp8(Path(src), Path(out), kind, progress=progress)


__all__ = [
    "KINDS",
    "ExportReport",
    "ExportedMatrix",
    "W8A8Options",
    "W8A8Quality",
    "export",
]
