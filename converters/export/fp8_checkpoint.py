"""FP8 as storage: a Hugging Face directory with the layers' matrices in 8-bit floats.

| kind | codes | scales | known as |
|---|---|---|---|
| fp8-block | E4M3 | F32, one per 128 x 128 block | `quant_method: fp8`, as in DeepSeek-V3 |
| fp8-tensor | E4M3 | F32, one per matrix | `compressed-tensors`, weights only |
| fp8-e5m2 | E5M2 | none | a plain checkpoint of another dtype |

A scale is the largest magnitude / 448, a code the nearest to weight / scale, all in float32.
Embedding, head and norms stay as they are. So do, in fp8-block, matrices whose sides are not
multiples of 128, with those that share their input: transformers misreads blocks that an edge cuts
off, and vLLM has no kernels for them.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import NumericError, UnsupportedError

from ..checkpoint import Checkpoint, read_json_object
from ..extras import INPUT_FILES
from ..packed.float8 import LARGEST, F32Array, U8Array, decode_float8, encode_float8
from ..plan import Job, Options
from ..report import ConvertProgress, PlannedTensor, ProgressFn
from .plain import check_plain, widths_differ
from .report import ExportedMatrix, ExportReport
from .shards import ShardWriter, StoredTensor
from .whole import check_target, whole_directory

FP8_KINDS = ("fp8-block", "fp8-tensor", "fp8-e5m2")
BLOCK = 128
READ_WEIGHTS = 4 << 20
# Matrices that vLLM joins to one: packed alike or not at all.
_JOINED = (("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up"))
_COPIED_AS_STORED = ("F32", "F16", "BF16")
_NOT_COPIED = ("config.json", "model.safetensors.index.json")
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TINY = np.finfo(np.float32).tiny


def export_fp8(
    src: Path, out: Path, kind: str, *, progress: ProgressFn | None = None
) -> ExportReport:
    """Writes directory `out`, which must not exist, whole or not at all.

    NumericError for weights that are not finite, or in E5M2 too large; UnsupportedError where
    nothing would be packed, and for models of other blocks than Llama's.
    """
    start = time.monotonic()
    with Checkpoint(src) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        check_plain(job.spec, kind)
        if widths_differ(job.spec):
            raise UnsupportedError(
                f"{src}: its layers differ in width, which readers of {kind} have no place for; "
                "prune with uniform = true",
                code="spec_unsupported",
            )
        plan = _plan(job, kind)
        tensors = [stored for item in plan.items for stored in _stored(plan, item)]
        check_target(out, sum(tensor.n_bytes for tensor in tensors))
        with whole_directory(out) as folder:
            with ShardWriter(folder, tensors) as writer:
                matrices = tuple(_write(plan, writer, progress))
            _write_beside(plan, folder)
            n_bytes = sum(path.stat().st_size for path in folder.iterdir())
        return ExportReport(
            path=out,
            kind=kind,
            n_weights=sum(item.n_weights for item in plan.items),
            n_bytes=n_bytes,
            matrices=matrices,
            warnings=(*plan.job.warnings, *_warnings(plan)),
            seconds=time.monotonic() - start,
        )


@dataclass(frozen=True)
class Packed:
    """codes [n_rows, n_cols]; scales: F32, one per BLOCK x BLOCK codes, or [1, 1] for all."""

    codes: U8Array
    scales: F32Array


def pack_blocks(weights: F32Array) -> Packed:
    """[n_rows, n_cols] float32 to E4M3, one scale a block; the last blocks may be cut off. A block
    of zeros has scale 1."""
    row_starts, col_starts = (np.arange(0, size, BLOCK) for size in weights.shape)
    amax = np.maximum.reduceat(np.abs(weights), row_starts, axis=0)
    scales = _scale(np.maximum.reduceat(amax, col_starts, axis=1))
    return Packed(encode_float8(weights / _spread(scales, weights.shape), "F8_E4M3"), scales)


def pack_tensor(weights: F32Array, scale: F32Array | None, dtype: str) -> Packed:
    """scale: [1, 1], of the whole matrix; None for none."""
    scales = np.ones((1, 1), dtype=np.float32) if scale is None else scale
    return Packed(encode_float8(weights / scales, dtype), scales)


def unpacked(packed: Packed, dtype: str) -> F32Array:
    """What a reader makes of it."""
    return decode_float8(packed.codes, dtype) * _spread(packed.scales, packed.codes.shape)


def _spread(scales: F32Array, shape: tuple[int, ...]) -> F32Array:
    """One scale for every weight; [1, 1] stands for itself."""
    if scales.shape == (1, 1):
        return scales
    return np.repeat(np.repeat(scales, BLOCK, 0)[: shape[0]], BLOCK, 1)[:, : shape[1]]


def _scale(amax: F32Array) -> F32Array:
    scale = np.maximum(amax / np.float32(LARGEST["F8_E4M3"]), _TINY)
    return np.where(amax > 0, scale, np.float32(1)).astype(np.float32)


@dataclass(frozen=True)
class _Plan:
    """items: what the checkpoint holds. matrices: those of the layers; packed: names of those of
    them that become 8-bit floats."""

    job: Job
    kind: str
    items: tuple[PlannedTensor, ...]
    matrices: tuple[PlannedTensor, ...]
    packed: frozenset[str]

    @property
    def kept_matrices(self) -> list[PlannedTensor]:
        return [item for item in self.matrices if item.name not in self.packed]

    @property
    def dtype(self) -> str:
        return "F8_E5M2" if self.kind == "fp8-e5m2" else "F8_E4M3"

    def kept_dtype(self, item: PlannedTensor) -> str:
        """What a tensor that is not packed is stored as."""
        stored = self.job.checkpoint.tensors[_source(item)].dtype
        return stored if stored in _COPIED_AS_STORED else "F32"


def _plan(job: Job, kind: str) -> _Plan:
    items = tuple(item for item in job.planned if item.source is not None)
    matrices = tuple(
        item for item in items if item.name.startswith("layers.") and len(item.shape) == 2
    )
    packed = {item.name for item in matrices}
    if kind == "fp8-block":
        ragged = [item for item in matrices if any(size % BLOCK for size in item.shape)]
        for item in ragged:
            prefix = item.name.removesuffix(item.role)
            joined = [role for group in _JOINED if item.role in group for role in group]
            packed -= {prefix + role for role in (item.role, *joined)}
    if not packed:
        raise UnsupportedError(
            f"{job.checkpoint.directory}: no matrix has sides that are multiples of {BLOCK}; "
            "choose fp8-tensor",
            code="tensor_shape",
        )
    return _Plan(job, kind, items, matrices, frozenset(packed))


def _source(item: PlannedTensor) -> str:
    assert item.source is not None
    return item.source


def _stored(plan: _Plan, item: PlannedTensor) -> Iterator[StoredTensor]:
    if item.name not in plan.packed:
        yield StoredTensor(_source(item), plan.kept_dtype(item), item.shape)
        return
    yield StoredTensor(_source(item), plan.dtype, item.shape)
    if plan.kind == "fp8-block":
        grid = (item.shape[0] // BLOCK, item.shape[1] // BLOCK)
        yield StoredTensor(_source(item) + "_scale_inv", "F32", grid)
    elif plan.kind == "fp8-tensor":
        yield StoredTensor(_source(item) + "_scale", "F32", (1,))


def _write(
    plan: _Plan, writer: ShardWriter, progress: ProgressFn | None
) -> Iterator[ExportedMatrix]:
    n_total, n_done = sum(item.n_weights for item in plan.items), 0
    for item in plan.items:
        if item.name in plan.packed:
            yield _pack(plan, item, writer)
        else:
            _keep(plan, item, writer)
        n_done += item.n_weights
        if progress is not None:
            progress(ConvertProgress(item.name, n_done, n_total))


def _keep(plan: _Plan, item: PlannedTensor, writer: ShardWriter) -> None:
    checkpoint, offset = plan.job.checkpoint, 0
    info = checkpoint.tensors[_source(item)]
    for row0, n in _row_blocks(item, 1):
        if info.dtype in _COPIED_AS_STORED:
            data: Any = checkpoint.stored_bytes(info, row0, n)
        else:
            data = checkpoint.read_rows(info.name, row0, n).astype("<f4")
        writer.write(info.name, offset, data)
        offset += data.nbytes


def _pack(plan: _Plan, item: PlannedTensor, writer: ShardWriter) -> ExportedMatrix:
    name, n_cols = _source(item), item.shape[1]
    scale = _tensor_scale(plan, item) if plan.kind == "fp8-tensor" else None
    error_sum = weight_sum = 0.0
    for row0, n in _row_blocks(item, BLOCK):
        weights = _finite(plan.job.checkpoint.read_rows(name, row0, n), item)
        if plan.kind == "fp8-block":
            packed = pack_blocks(weights)
            grid_offset = row0 // BLOCK * packed.scales.shape[1] * packed.scales.itemsize
            writer.write(name + "_scale_inv", grid_offset, packed.scales)
        else:
            packed = pack_tensor(weights, scale, plan.dtype)
        writer.write(name, row0 * n_cols, packed.codes)
        decoded = _finite(unpacked(packed, plan.dtype), item)
        error_sum += float(np.square(decoded - weights, dtype=np.float64).sum())
        weight_sum += float(np.square(weights, dtype=np.float64).sum())
    if scale is not None:
        writer.write(name + "_scale", 0, scale)
    error = math.sqrt(error_sum / weight_sum) if weight_sum > 0 else 0.0
    return ExportedMatrix(name, plan.dtype, error)


def _tensor_scale(plan: _Plan, item: PlannedTensor) -> F32Array:
    """[1, 1]; reads the matrix once."""
    amax = np.zeros((1, 1), dtype=np.float32)
    for row0, n in _row_blocks(item, 1):
        rows = _finite(plan.job.checkpoint.read_rows(_source(item), row0, n), item)
        np.maximum(amax, np.abs(rows).max(), out=amax)
    return _scale(amax)


def _finite(rows: F32Array, item: PlannedTensor) -> F32Array:
    if not np.isfinite(rows).all():
        raise NumericError(
            f"tensor '{item.source}' holds a value that is not finite, or too large for the format",
            code="numeric",
        )
    return rows


def _row_blocks(item: PlannedTensor, multiple: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of about READ_WEIGHTS weights, whole multiples of rows but for the last."""
    n_rows, n_cols = item.rows_cols
    step = max(1, READ_WEIGHTS // n_cols // multiple) * multiple
    for row0 in range(0, n_rows, step):
        yield row0, min(step, n_rows - row0)


def _write_beside(plan: _Plan, folder: Path) -> None:
    """config.json and copies of tokenizer, generation settings, template and licence."""
    source = plan.job.checkpoint.directory
    config = read_json_object(source / "config.json")
    config.pop("quantization_config", None)
    if "dtype" not in config and "torch_dtype" not in config:
        # Otherwise transformers takes the dtype of the first tensor, of 8-bit floats perhaps.
        norm = next(item for item in plan.items if len(item.shape) == 1)
        config["torch_dtype"] = _TORCH_DTYPES[plan.kept_dtype(norm)]
    if not plan.job.spec.tied_head:
        config["tie_word_embeddings"] = False
    quantization = _quantization_config(plan)
    if quantization is not None:
        config["quantization_config"] = quantization
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name in (*INPUT_FILES, *_LICENCES):
        if name not in _NOT_COPIED and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _quantization_config(plan: _Plan) -> dict[str, Any] | None:
    if plan.kind == "fp8-block":
        kept = [_source(item).removesuffix(".weight") for item in plan.kept_matrices]
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
            "modules_to_not_convert": ["lm_head", *kept],
        }
    if plan.kind == "fp8-tensor":
        weights = {
            "num_bits": 8,
            "type": "float",
            "strategy": "tensor",
            "symmetric": True,
            "dynamic": False,
        }
        group = {
            "targets": ["Linear"],
            "weights": weights,
            "input_activations": None,
            "output_activations": None,
        }
        return {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        }
    return None


def _warnings(plan: _Plan) -> Iterator[str]:
    kept = plan.kept_matrices
    if kept:
        roles = ", ".join(dict.fromkeys(item.role for item in kept))
        yield (
            f"{len(kept)} of {len(plan.matrices)} matrices kept as they are ({roles}): a side of "
            f"theirs, or of one they are joined with, is no multiple of {BLOCK}"
        )
    stored = {plan.job.checkpoint.tensors[_source(item)].dtype for item in plan.items}
    if stored - set(_COPIED_AS_STORED):
        yield "the checkpoint is in 8-bit floats already: its weights are rounded a second time"
