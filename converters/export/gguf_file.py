"""A GGUF file for llama.cpp, of models of Llama's, Qwen 2's and Qwen 3's blocks.

| kind | matrices of the layers | embedding and head |
|---|---|---|
| gguf-f16 | F16 | F16 |
| gguf-q8_0 | Q8_0 | Q8_0 |
| gguf-q4_0 | Q4_0 | Q8_0 |
| gguf-iq4_nl | IQ4_NL | Q8_0 |

Rows that are not whole blocks stay F16, vectors are F32. Read row by row and written as a stream.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import EdgeError

from ..gguf.checkpoint import GgufCheckpoint
from ..gguf.dequantize import dequantize
from ..gguf.quantize import quantize
from ..gguf.tensors import stored_name
from ..gguf.types import BY_NAME
from ..gguf.writer import GgufWriter, OutTensor, total_bytes
from ..plan import Job, Options
from ..recipe import EMBED_ROLE, HEAD_ROLE
from ..report import ConvertProgress, PlannedTensor, ProgressFn
from ..sources import open_checkpoint
from .gguf_keys import Target, model_keys, target_of, tokenizer_keys
from .report import ExportedMatrix, ExportReport
from .whole import check_target, whole_files

F32Array = npt.NDArray[np.float32]

GGUF_KINDS = {
    "gguf-f16": "F16",
    "gguf-q8_0": "Q8_0",
    "gguf-q4_0": "Q4_0",
    "gguf-iq4_nl": "IQ4_NL",
}
_OUTER = {"Q4_0": "Q8_0", "IQ4_NL": "Q8_0"}  # of embedding and head
_FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q4_0": 2, "IQ4_NL": 25}  # llama.cpp's general.file_type
READ_WEIGHTS = 4 << 20


def export_gguf(
    src: Path, out: Path, kind: str, *, progress: ProgressFn | None = None
) -> ExportReport:
    """Writes the file `out`, which must not exist, whole or not at all.

    UnsupportedError: blocks or a tokenizer that llama.cpp's architectures for these models do not
    have. NumericError: a weight that is not finite or does not fit.
    """
    start = time.monotonic()
    with open_checkpoint(src) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        target = target_of(job)
        items = [item for item in job.planned if item.source is not None]
        plan = _Plan(job, target, GGUF_KINDS[kind], tuple(items))
        tensors = [plan.tensor(item) for item in items]
        factors = [OutTensor("rope_freqs.weight", target.factors.shape, "F32")]
        factors = factors if target.factors.size else []
        keys = _keys(job, target, GGUF_KINDS[kind])
        check_target(out, total_bytes([*factors, *tensors]))
        with whole_files(out) as folder:
            with (folder / out.name).open("wb") as file:
                writer = GgufWriter(file, keys, [*factors, *tensors])
                for tensor in factors:
                    writer.add(tensor, [target.factors.view(np.uint8)])
                matrices = tuple(_write(plan, writer, progress))
            n_bytes = (folder / out.name).stat().st_size
        return ExportReport(
            path=out,
            kind=kind,
            n_weights=sum(item.n_weights for item in items),
            n_bytes=n_bytes,
            matrices=matrices,
            warnings=tuple(job.warnings),
            seconds=time.monotonic() - start,
        )


@dataclass(frozen=True)
class _Plan:
    """type_name: of the layers' matrices."""

    job: Job
    target: Target
    type_name: str
    items: tuple[PlannedTensor, ...]

    def tensor(self, item: PlannedTensor) -> OutTensor:
        layer = int(item.name.split(".")[1]) if item.name.startswith("layers.") else None
        name = stored_name(item.role, layer)
        if len(item.shape) == 1:
            return OutTensor(name, item.shape, "F32")
        outer = item.role in (EMBED_ROLE, HEAD_ROLE)
        kind = _OUTER.get(self.type_name, self.type_name) if outer else self.type_name
        fits = item.shape[1] % BY_NAME[kind].n_weights == 0
        return OutTensor(name, item.shape, kind if fits else "F16")

    def head_dim(self, item: PlannedTensor) -> int:
        """Of the heads whose rows are put in another order; 0 for none."""
        if not self.target.in_pairs or item.role.removesuffix("_bias") not in ("attn_q", "attn_k"):
            return 0
        return self.job.spec.layers[int(item.name.split(".")[1])].head_dim


def _keys(job: Job, target: Target, type_name: str) -> dict[str, Any]:
    keys: dict[str, Any] = {"general.architecture": target.arch}
    keys |= {f"{target.arch}.{key}": value for key, value in model_keys(job, target).items()}
    keys["general.file_type"] = _FILE_TYPES[type_name]
    keys["general.quantization_version"] = 2
    checkpoint = job.checkpoint
    if isinstance(checkpoint, GgufCheckpoint):
        return keys | checkpoint.vocabulary_keys()
    return keys | tokenizer_keys(job)


def _write(
    plan: _Plan, writer: GgufWriter, progress: ProgressFn | None
) -> Iterator[ExportedMatrix]:
    n_total, n_done = sum(item.n_weights for item in plan.items), 0
    for item in plan.items:
        tensor = plan.tensor(item)
        error = _Error()
        writer.add(tensor, _pieces(plan, item, tensor, error))
        if len(item.shape) == 2:
            yield ExportedMatrix(item.source or item.name, tensor.type_name, error.relative)
        n_done += item.n_weights
        if progress is not None:
            progress(ConvertProgress(item.name, n_done, n_total))


class _Error:
    """Sums of squares, of differences and of weights."""

    def __init__(self) -> None:
        self._differences = self._weights = 0.0

    def add(self, weights: F32Array, written: F32Array) -> None:
        self._differences += float(np.square(written - weights, dtype=np.float64).sum())
        self._weights += float(np.square(weights, dtype=np.float64).sum())

    @property
    def relative(self) -> float:
        return float((self._differences / self._weights) ** 0.5) if self._weights else 0.0


def _pieces(
    plan: _Plan, item: PlannedTensor, tensor: OutTensor, error: _Error
) -> Iterator[npt.NDArray[np.uint8]]:
    n_rows, n_cols = item.rows_cols
    head_dim = plan.head_dim(item)
    unit = head_dim or 1
    step = max(unit, READ_WEIGHTS // n_cols // unit * unit)
    for row0 in range(0, n_rows, step):
        rows = plan.job.read_rows(item, row0, min(step, n_rows - row0))
        if head_dim:
            rows = in_pairs(rows.T if n_rows == 1 else rows, head_dim)
            rows = rows.reshape(-1, n_cols)
        try:
            raw = quantize(rows, tensor.type_name)
        except EdgeError as failure:
            raise type(failure)(f"tensor '{item.source}': {failure}", code=failure.code) from None
        error.add(rows, dequantize(raw, tensor.type_name))
        yield raw


def in_pairs(rows: F32Array, head_dim: int) -> F32Array:
    """Rows of whole heads, from halves that turn together to neighbours."""
    n_rows, n_cols = rows.shape
    halves = rows.reshape(-1, 2, head_dim // 2, n_cols)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(n_rows, n_cols)
