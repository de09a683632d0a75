"""Converts a checkpoint into one compact file, tensor by tensor in bounded memory.

Reading, encoding and writing overlap: one thread reads blocks of rows as float32, one encodes them
(the encoder itself is threaded), and the caller's thread hashes and writes. Another thread digests
the input files meanwhile. Knows no architecture and no byte layout.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.edgefile import EdgeWriter, tensor_bytes
from edgellm.errors import EdgeError, FormatError, InvalidArgumentError, NumericError

from .background import Ahead
from .calibrate import CalibrationTokens
from .calibrate.convert import calibrated
from .calibrate.held_out import split_tokens
from .calibrate.tokens import Tokens
from .calibrate.work import WorkDir
from .encode import encode_rows
from .extras import SourceDigests, text_blobs
from .plan import Job, Options
from .quality import measure_quality
from .quant import decode_matrix
from .quant.tiles import TILE_ROWS, F32Array, U8Array
from .recipe import Recipe
from .recipe_file import read_recipe
from .report import (
    ConvertPlan,
    ConvertProgress,
    ConvertReport,
    PlannedTensor,
    ProgressFn,
    Quality,
    TensorReport,
    bits_by_part,
    peak_rss_bytes,
    quality_json,
)
from .scores import append_scores
from .sources import open_checkpoint

BLOCK_WEIGHTS = 4 << 20  # 16 MiB as float32; five or so are alive at a time
MEASURE_ALL_WEIGHTS = 1 << 20  # up to this size the error is measured on every row
MEASURE_STRIDE = 16  # beyond, on every 16th strip
SPARE_DISK_BYTES = 4 << 20  # header, report, and what the file system keeps for itself


@dataclass(frozen=True)
class _Block:
    """Rows of one tensor. [n_rows, n_cols] float32; row0 is a multiple of 16."""

    tensor: PlannedTensor
    row0: int
    weights: F32Array


@dataclass(frozen=True)
class _Encoded:
    data: U8Array
    n_weights: int
    n_rows_measured: int
    error_square_sum: float
    weight_square_sum: float


class _Meter:
    """Counts weights written and tells the callback."""

    def __init__(self, n_total: int, progress: ProgressFn | None) -> None:
        self._n_total = n_total
        self._n_done = 0
        self._progress = progress

    def advance(self, tensor: str, n_weights: int) -> None:
        self._n_done += n_weights
        if self._progress is not None:
            self._progress(ConvertProgress(tensor, self._n_done, self._n_total))


def plan_conversion(
    src: Path,
    *,
    format: str | None = None,
    embed_format: str | None = None,
    head_format: str | None = None,
    act: str | None = None,
    recipe: Recipe | Path | None = None,
    calibration: CalibrationTokens | Sequence[Path] = (),
) -> ConvertPlan:
    """Everything convert() would do, without reading a weight (except to compare a tied head)."""
    choices = (format, embed_format, head_format, act, _recipe(recipe), bool(calibration))
    with open_checkpoint(Path(src), without_weights=True) as checkpoint:
        return Job(checkpoint, Options(*choices)).as_plan()


def convert(
    src: Path,
    out: Path,
    *,
    format: str | None = None,
    embed_format: str | None = None,
    head_format: str | None = None,
    act: str | None = None,
    recipe: Recipe | Path | None = None,
    calibration: CalibrationTokens | Sequence[Path] = (),
    held_out: Tokens | None = None,
    work_dir: Path | None = None,
    stats_dir: Path | None = None,
    n_threads: int = 0,
    progress: ProgressFn | None = None,
) -> ConvertReport:
    """Writes `out` (whole, or not at all) and says what was done.

    format: of all matrices; None: by role, as recipe.DEFAULT_FORMATS says. act: "a8", "a8x2" or
    "f32" for all but F16; None takes each format's default. recipe: instead of those four; a TOML
    file or what one says.
    calibration: text files, chat logs or tokens; without a recipe, the layers' matrices are then
    quantized by GPTQ. Needs torch. held_out: windows [n_windows, window_tokens] to measure the
    divergence on, with or without calibration; None takes what calibration texts have beyond what
    calibrates. work_dir: where a calibrated conversion keeps what it has done, so that it goes on
    after an interruption; default OUT.work, removed in the end. stats_dir: keeps what was measured,
    for other recipes with the same text; not kept if not given. n_threads: 0 for
    all performance cores. An exception of `progress` cancels.
    """
    start = time.monotonic()
    if (work_dir is not None or stats_dir is not None) and not calibration:
        raise InvalidArgumentError(
            "work_dir and stats_dir are for calibrated conversions; this one keeps nothing",
            code="invalid_argument",
        )
    choices = (format, embed_format, head_format, act, _recipe(recipe), bool(calibration))
    with open_checkpoint(Path(src)) as checkpoint:
        job = Job(checkpoint, Options(*choices))
        blobs = text_blobs(job)
        _check_disk(Path(out), job, blobs, with_work=bool(calibration) and work_dir is None)
        with SourceDigests(checkpoint) as digests:
            work, windows = None, held_out
            if calibration:
                root = Path(work_dir or f"{out}.work")
                tokens, rest = split_tokens(job, calibration, blobs)
                windows = rest if held_out is None else held_out
            _check_balance(job, windows)
            if calibration:
                work = calibrated(job, tokens, root, blobs, digests, n_threads, progress, stats_dir)
            quality = _quality(job, blobs, work, windows, n_threads, progress)
            tensors, source = _write(
                job, Path(out), blobs, digests, work, quality, n_threads, progress
            )
        if work is not None and work_dir is None:
            work.remove()
        plan = job.as_plan()
    return ConvertReport(
        path=Path(out),
        recipe_name=plan.recipe_name,
        n_weights=plan.n_weights,
        n_bytes=plan.n_bytes,
        tensors=tensors,
        source=source,
        warnings=plan.warnings,
        seconds=time.monotonic() - start,
        peak_rss_bytes=peak_rss_bytes(),
        bits_by_part=bits_by_part(job.planned),
        recipe_json=blobs["recipe"].decode(),
        quality=quality,
    )


def _quality(
    job: Job,
    blobs: dict[str, bytes],
    work: WorkDir | None,
    held_out: Tokens | None,
    n_threads: int,
    progress: ProgressFn | None,
) -> Quality | None:
    """None without text; the job then knows what to do with keys, too."""
    if held_out is None:
        job.settle_keys(job.recipe.rotate_keys is True, {})
        return None
    if progress is not None:
        n_weights = sum(item.n_weights for item in job.planned)
        progress(ConvertProgress("held-out text", 0, n_weights, stage="measure"))

    def strips(item: PlannedTensor) -> U8Array:
        return _strips(job, item, work, n_threads)

    blob = blobs.get("tokenizer")
    quality, balances = measure_quality(job, blob, strips, held_out, n_threads)
    job.settle_keys(quality.kv.rotate_keys, balances)
    return quality


def _check_balance(job: Job, held_out: Tokens | None) -> None:
    if job.recipe.balance_keys and held_out is None:
        raise InvalidArgumentError(
            f"recipe '{job.recipe.name}': balance_keys = true takes held-out text to measure keys "
            "on; give more calibration text than calibrates, or leave balance_keys out",
            code="invalid_argument",
        )


def _strips(job: Job, item: PlannedTensor, work: WorkDir | None, n_threads: int) -> U8Array:
    """The strips that _write() will give a matrix."""
    if work is not None and job.method(item).needs_stats:
        return _from_work(work, item)
    rows = job.read_rows(item, 0, item.rows_cols[0])
    return encode_rows(job.checkpoint, item, job.method(item), rows, 0, n_threads)


def _from_work(work: WorkDir, item: PlannedTensor) -> U8Array:
    strips = work.load(item.name, item.n_bytes)
    if strips is None:
        raise FormatError(
            f"{item.name}: its strips are gone from the work directory; convert again",
            code="file_unreadable",
        )
    return strips


def _recipe(recipe: Recipe | Path | None) -> Recipe | None:
    return recipe if recipe is None or isinstance(recipe, Recipe) else read_recipe(Path(recipe))


def _write(
    job: Job,
    out: Path,
    blobs: dict[str, bytes],
    digests: SourceDigests,
    work: WorkDir | None,
    quality: Quality | None,
    n_threads: int,
    progress: ProgressFn | None,
) -> tuple[tuple[TensorReport, ...], dict[str, Any]]:
    reserve_bytes = 8192 + 256 * len(digests.paths)
    reports: list[TensorReport] = []
    meter = _Meter(sum(item.n_weights for item in job.planned), progress)
    with (
        EdgeWriter(out, spec=job.spec.to_dict(), reserve_bytes=reserve_bytes) as writer,
        Ahead(_read_blocks(job)) as blocks,
        Ahead(_encode_blocks(blocks, job, work, n_threads)) as encoded,
    ):
        for item in job.planned:
            writer.plan(item.name, item.role, format=item.format, shape=item.shape, act=item.act)
        for item in job.planned:
            parts: list[_Encoded] = []
            writer.add(item.name, _stream(item, encoded, parts, meter))
            if item.act is not None:
                reports.append(_tensor_report(item, parts))
        for name, data in blobs.items():
            writer.append(name, name, data)
        unscored = None if job.spec.headless else append_scores(writer, n_threads)
        if unscored:
            job.warnings.append(unscored)
        parts_bits, warnings = bits_by_part(job.planned), tuple(job.warnings)
        report = quality_json(tuple(reports), warnings, parts_bits, quality)
        writer.append("report", "report", report)
        source: dict[str, Any] = {"kind": job.checkpoint.kind, "files": digests.result()}
        if (scales := job.arch.scales(job.config)) is not None:
            source["scales"] = scales  # adapters need them, and the rotation
        if job.rotation.layers:
            source["rotated_values"] = list(job.rotation.layers)
        writer.set_source(source)
    return tuple(reports), source


def _stream(
    item: PlannedTensor, encoded: Iterator[_Encoded], parts: list[_Encoded], meter: _Meter
) -> Iterator[memoryview]:
    """The bytes of one tensor; leaves its error figures in `parts`."""
    n_left = item.n_weights
    while n_left > 0:
        block = next(encoded)
        n_left -= block.n_weights
        yield block.data.data
        parts.append(replace(block, data=np.empty(0, dtype=np.uint8)))
        meter.advance(item.name, block.n_weights)


def _read_blocks(job: Job) -> Iterator[_Block]:
    for item in job.planned:
        n_rows, n_cols = item.rows_cols
        if item.source is None:
            yield _Block(item, 0, job.tables[item.name].reshape(1, -1))
            continue
        n_block = max(TILE_ROWS, BLOCK_WEIGHTS // n_cols // TILE_ROWS * TILE_ROWS)
        for row0 in range(0, n_rows, n_block):
            n = min(n_block, n_rows - row0)
            yield _Block(item, row0, job.read_rows(item, row0, n))


def _encode_blocks(
    blocks: Iterator[_Block], job: Job, work: WorkDir | None, n_threads: int
) -> Iterator[_Encoded]:
    strips: U8Array | None = None
    for block in blocks:
        item = block.tensor
        if work is not None and job.method(item).needs_stats:
            if block.row0 == 0:
                strips = _from_work(work, item)
            assert strips is not None
            yield _measured(block, _rows_of(strips, block))
            continue
        if item.act is None:
            if not np.isfinite(block.weights).all():
                raise NumericError(
                    f"tensor '{item.source}' holds a value that is not finite", code="numeric"
                )
            data = block.weights.astype("<f4").reshape(-1).view(np.uint8)
            yield _Encoded(data, block.weights.size, 0, 0.0, 0.0)
            continue
        try:
            data = encode_rows(
                job.checkpoint, item, job.method(item), block.weights, block.row0, n_threads
            )
        except EdgeError as error:
            raise type(error)(
                f"tensor '{item.source}', block at row {block.row0}: {error}", code=error.code
            ) from error
        yield _measured(block, data)


def _rows_of(strips: U8Array, block: _Block) -> U8Array:
    """The part of a whole matrix's strips that belongs to the rows of `block`."""
    format = block.tensor.format
    n_rows, n_cols = block.weights.shape
    begin = tensor_bytes(format, block.row0, n_cols) if block.row0 else 0
    return strips[begin : begin + tensor_bytes(format, n_rows, n_cols)]


def _measured(block: _Block, data: U8Array) -> _Encoded:
    """The encoded block with its squared error, on all strips or on every 16th."""
    item = block.tensor
    n_rows, n_cols = block.weights.shape
    stride = 1 if item.n_weights <= MEASURE_ALL_WEIGHTS else MEASURE_STRIDE
    strips = data.reshape(-(-n_rows // TILE_ROWS), -1)
    first = -(block.row0 // TILE_ROWS) % stride
    n_measured, error_sum, weight_sum = 0, 0.0, 0.0
    for index in range(first, len(strips), stride):
        row0 = index * TILE_ROWS
        original = block.weights[row0 : row0 + TILE_ROWS]
        decoded = decode_matrix(item.format, strips[index], len(original), n_cols)
        error_sum += float(np.square(decoded - original, dtype=np.float64).sum())
        weight_sum += float(np.square(original, dtype=np.float64).sum())
        n_measured += len(original)
    return _Encoded(data, block.weights.size, n_measured, error_sum, weight_sum)


def _tensor_report(item: PlannedTensor, parts: list[_Encoded]) -> TensorReport:
    weight_sum = sum(part.weight_square_sum for part in parts)
    error_sum = sum(part.error_square_sum for part in parts)
    return TensorReport(
        name=item.name,
        format=item.format,
        act=item.act or "",
        bits_per_weight=8 * item.n_bytes / item.n_weights,
        rel_rms_error=math.sqrt(error_sum / weight_sum) if weight_sum > 0 else 0.0,
        n_rows_measured=sum(part.n_rows_measured for part in parts),
    )


def _check_disk(out: Path, job: Job, blobs: dict[str, bytes], with_work: bool) -> None:
    """with_work: what calibration has done stands beside the file until that is whole."""
    if out.is_dir():
        raise FormatError(f"{out}: is a directory", code="file_write_failed")
    if not out.parent.is_dir():
        raise FormatError(f"{out.parent}: no such directory", code="file_write_failed")
    n_bytes = sum(item.n_bytes for item in job.planned) + sum(map(len, blobs.values()))
    needed = n_bytes + n_bytes // 1000 + SPARE_DISK_BYTES  # hashes take 32 bytes of each MiB
    if with_work:
        needed += sum(item.n_bytes for item in job.planned if job.method(item).needs_stats)
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise FormatError(
            f"{out}: the file will have {n_bytes / 2**20:.1f} MiB and needs {needed / 2**20:.1f} "
            f"MiB while it is written, but {free / 2**20:.1f} MiB are free there; nothing was "
            "written: free space, write to another disk, or choose a smaller --format",
            code="file_write_failed",
        )
