"""A GGUF file for llama.cpp, read row by row and written as a stream.

gguf_keys.py says what stands in its header, gguf_tensors.py in its tensors, and gguf_check.py that
our own reader will find the same model in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import EdgeError

from ..gguf.dequantize import dequantize
from ..gguf.quantize import quantize
from ..gguf.writer import GgufWriter, OutTensor, total_bytes
from ..plan import Job, Options
from ..report import ConvertProgress, ProgressFn
from ..sources import open_checkpoint
from .edge_source import EdgeCheckpoint, is_edge
from .gguf_check import check_header
from .gguf_keys import Target, target_of, tokenizer_keys
from .gguf_tensors import Block, Piece, Written, written_tensors
from .report import ExportedMatrix, ExportReport
from .whole import check_target, whole_files

F32Array = npt.NDArray[np.float32]
U8Array = npt.NDArray[np.uint8]

GGUF_KINDS = {
    "gguf-f16": "F16",
    "gguf-q8_0": "Q8_0",
    "gguf-q4_0": "Q4_0",
    "gguf-iq4_nl": "IQ4_NL",
}
_FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q4_0": 2, "IQ4_NL": 25}  # llama.cpp's general.file_type


def export_gguf(
    src: Path, out: Path, kind: str, *, progress: ProgressFn | None = None
) -> ExportReport:
    """Writes the file `out`, which must not exist, whole or not at all.

    UnsupportedError: a model or a tokenizer that GGUF, as llama.cpp reads it, has no place for.
    NumericError: a weight that is not finite or does not fit.
    """
    start = time.monotonic()
    with EdgeCheckpoint(src) if is_edge(src) else open_checkpoint(src) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        target = target_of(job)
        type_name = GGUF_KINDS[kind]
        tensors = written_tensors(job, target.spec, target.kind, type_name, target.divisors)
        extra = [OutTensor(name, values.shape, "F32") for name, values in target.tensors.items()]
        announced = [*extra, *(tensor.out for tensor in tensors)]
        keys = _keys(job, target, type_name)
        check_target(out, total_bytes(announced))
        with whole_files(out) as folder:
            path = folder / out.name
            with path.open("wb") as file:
                writer = GgufWriter(file, keys, announced)
                for tensor, values in zip(extra, target.tensors.values(), strict=True):
                    writer.add(tensor, [values.view(np.uint8)])
                file.flush()
                file.truncate(writer.n_bytes)
                check_header(path, job, target)
                matrices = tuple(_write(job, tensors, writer, progress))
            _say_rounded_again(job, tensors, matrices)
            n_bytes = path.stat().st_size
        return ExportReport(
            path=out,
            kind=kind,
            n_weights=sum(item.n_weights for item in job.planned if item.source is not None),
            n_bytes=n_bytes,
            matrices=matrices,
            warnings=tuple(job.warnings),
            seconds=time.monotonic() - start,
        )


def _keys(job: Job, target: Target, type_name: str) -> dict[str, Any]:
    keys: dict[str, Any] = {"general.architecture": target.arch}
    keys |= {f"{target.arch}.{key}": value for key, value in target.keys.items()}
    keys["general.file_type"] = _FILE_TYPES[type_name]
    keys["general.quantization_version"] = 2
    return keys | tokenizer_keys(job)


def _write(
    job: Job, tensors: list[Written], writer: GgufWriter, progress: ProgressFn | None
) -> Iterator[ExportedMatrix]:
    n_total = sum(piece.item.n_weights for tensor in tensors for piece in tensor.pieces)
    n_done = 0
    for tensor in tensors:
        error = _Error()
        writer.add(tensor.out, _encoded(job, tensor, error))
        if len(tensor.out.shape) > 1:
            yield ExportedMatrix(tensor.out.name, tensor.out.type_name, error.relative)
        n_done += sum(piece.item.n_weights for piece in tensor.pieces)
        if progress is not None:
            progress(ConvertProgress(tensor.out.name, n_done, n_total))


class _Error:
    """Sums of squares, of differences and of weights."""

    def __init__(self) -> None:
        self._differences = self._weights = 0.0

    def add(self, weights: F32Array, written: F32Array) -> None:
        self._differences += float(np.square(written - weights, dtype=np.float64).sum())
        self._weights += float(np.square(weights, dtype=np.float64).sum())

    def add_exact(self, weights: F32Array) -> None:
        self._weights += float(np.square(weights, dtype=np.float64).sum())

    @property
    def relative(self) -> float:
        return float((self._differences / self._weights) ** 0.5) if self._weights else 0.0


def _encoded(job: Job, tensor: Written, error: _Error) -> Iterator[U8Array]:
    kind = tensor.out.type_name
    for piece in tensor.pieces:
        for block in piece.blocks(partial(_read, job, piece, kind)):
            if block.dtype == np.uint8:
                error.add_exact(dequantize(block, kind))
                yield block
                continue
            try:
                raw = quantize(block, kind)
            except EdgeError as failure:
                raise type(failure)(
                    f"tensor '{piece.item.source}': {failure}", code=failure.code
                ) from None
            error.add(block, dequantize(raw, kind))
            yield raw


def _read(job: Job, piece: Piece, kind: str, row0: int, n_rows: int) -> Block:
    """Numbers, or the bytes of blocks that hold them as they are."""
    checkpoint = job.checkpoint
    if isinstance(checkpoint, EdgeCheckpoint) and kind == "Q4_0" and piece.divisor == 1:
        raw = checkpoint.q4_0_rows(piece.item.name, row0, n_rows)
        if raw is not None:
            return raw
    return piece.rows(job, row0, n_rows)


def _say_rounded_again(
    job: Job, tensors: list[Written], matrices: Sequence[ExportedMatrix]
) -> None:
    checkpoint = job.checkpoint
    if not isinstance(checkpoint, EdgeCheckpoint):
        return
    inexact = {matrix.name for matrix in matrices if matrix.rel_rms_error}
    formats = [
        checkpoint.format_of(piece.item.name)
        for tensor in tensors
        if tensor.out.name in inexact
        for piece in tensor.pieces
    ]
    rounded = [name for name in formats if name != "F16"]
    if rounded:
        job.warnings.append(
            f"{len(rounded)} matrices were rounded when this file was made "
            f"({', '.join(sorted(set(rounded)))}) and are rounded again; from the original model "
            "the result is better"
        )
