"""SmoothQuant W8A8: a checkpoint and some text in, one ONNX graph out, layer by layer.

Only one layer's weights are in memory, the embedding, and the hidden state of every token. Needs
torch and onnx; where onnxruntime is installed, it runs the graph before it is handed out.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from edgellm.errors import FormatError, InvalidArgumentError, NumericError, UnsupportedError

from ..calibrate import CalibrationTokens
from ..calibrate.convert import text_tokens
from ..checkpoint import Checkpoint
from ..extras import text_blobs
from ..plan import Job, Options
from ..recipe import EMBED_ROLE, HEAD_ROLE, CalibrationOptions
from ..report import ConvertProgress, PlannedTensor, ProgressFn
from .plain import check_plain
from .report import ExportedMatrix, ExportReport, W8A8Quality
from .smoothquant import F32Array, QuantizedLayer, input_scale, int8_rows, smoothed_layer
from .whole import check_target, whole_files

if TYPE_CHECKING:
    from .w8a8_reference import Walk

W8A8_KIND = "w8a8-onnx"
DEFAULT_ALPHA = 0.5
DEFAULT_WINDOWS = 32
HELD_OUT_WINDOWS = 8
WINDOW_TOKENS = 512
# protobuf holds at most 2 GiB; beyond this constants go to a file beside the graph.
MAX_INLINE_BYTES = 1_800_000_000
MAX_NMSE = 1e-2
_EXTRAS = {"torch": "compress", "onnx": "npu"}


@dataclass(frozen=True)
class W8A8Options:
    """alpha: how much of the inputs' range the weights take over, None for none. dynamic: a scale
    for every token instead of one per matrix from the calibration text. n_windows: of text to
    calibrate on, DEFAULT_WINDOWS if not given; tokens come in windows of their own."""

    alpha: float | None = DEFAULT_ALPHA
    dynamic: bool = False
    n_windows: int | None = None

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise InvalidArgumentError(
                f"alpha is {self.alpha}, allowed is 0 to 1", code="invalid_argument"
            )
        if self.n_windows is not None and self.n_windows < 1:
            raise InvalidArgumentError(
                f"{self.n_windows} windows, at least 1 is needed", code="invalid_argument"
            )


def export_w8a8(
    src: Path,
    out: Path,
    calibration: CalibrationTokens | Sequence[Path],
    options: W8A8Options,
    *,
    progress: ProgressFn | None = None,
) -> ExportReport:
    """Writes `out` and, for large models, `out`.data beside it; neither may exist.

    calibration: text files or tokens; the last HELD_OUT_WINDOWS windows are measured on, not
    calibrated on. UnsupportedError without torch or onnx; NumericError where onnxruntime gives
    other logits than torch.
    """
    start = time.monotonic()
    for package, extra in _EXTRAS.items():
        _need(package, extra)
    data = out.with_name(out.name + ".data")
    with Checkpoint(src) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        check_plain(job.spec, W8A8_KIND)
        tokens = _tokens(job, calibration, options)
        n_bytes = sum(_n_bytes(item) for item in job.planned)
        check_target(out, n_bytes)
        check_target(data, n_bytes)
        with whole_files(out, data) as folder:
            with _data_file(folder / data.name, n_bytes > MAX_INLINE_BYTES) as file:
                build = _Build(job, tokens, options, progress)
                quality, logits = build.run(folder / out.name, file, data.name)
            nmse = onnxruntime_nmse(folder / out.name, tokens.held_out[0], logits)
            n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    unchecked = ["onnxruntime is not installed: the graph was not run (edgellm[npu])"]
    return ExportReport(
        path=out,
        kind=W8A8_KIND,
        n_weights=sum(item.n_weights for item in job.planned),
        n_bytes=n_bytes,
        matrices=tuple(build.matrices),
        warnings=(*job.warnings, *(unchecked if nmse is None else ())),
        seconds=time.monotonic() - start,
        quality=replace(quality, onnxruntime_nmse=nmse),
    )


def onnxruntime_nmse(path: Path, ids: np.ndarray, logits: F32Array) -> float | None:
    """onnxruntime on ids [n_tokens] against `logits` [n_tokens, n_vocab]: the sum of squared
    differences over that of squares. None where it is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(["logits"], {"input_ids": ids[None].astype(np.int64)})[0][0]
    error = np.square(got - logits, dtype=np.float64).sum()
    nmse = float(error / np.square(logits, dtype=np.float64).sum())
    if not nmse <= MAX_NMSE:
        raise NumericError(
            f"onnxruntime's logits differ from torch's of the same model by {nmse:.2g} of their "
            f"square (allowed: {MAX_NMSE}); a CPU without VNNI can saturate int8 products",
            code="numeric",
        )
    return nmse


@dataclass(frozen=True)
class _Tokens:
    """[n_windows, window_tokens] each."""

    calibration: np.ndarray
    held_out: np.ndarray


class _Build:
    def __init__(
        self, job: Job, tokens: _Tokens, options: W8A8Options, progress: ProgressFn | None
    ) -> None:
        self.matrices: list[ExportedMatrix] = []
        self._job, self._tokens, self._options = job, tokens, options
        self._items = {item.name: item for item in job.planned}
        self._progress, self._n_done = progress, 0

    def run(self, path: Path, data: BinaryIO | None, location: str) -> tuple[W8A8Quality, F32Array]:
        """Also the logits of the first held-out window, for who runs the graph."""
        from .onnx_graph import DecoderGraph, Initializers

        job = self._job
        graph = DecoderGraph(job.spec, job.tables["rope_inv_freq"], Initializers(data, location))
        table = self._read(EMBED_ROLE)
        graph.embed(table)
        walk = self._walk(table)
        for index in range(len(job.spec.layers)):
            layer = self._quantized(walk, index)
            graph.layer(index, layer)
            walk.advance(index, layer)
        norm = self._read("output_norm").reshape(-1)
        head = table if job.spec.tied_head else self._read(HEAD_ROLE)
        graph.head(norm, head)
        graph.save(path)
        divergence, logits = walk.divergence(norm, head)
        quality = W8A8Quality(
            n_calibration_tokens=self._tokens.calibration.size,
            n_held_out_tokens=divergence.n_tokens,
            kl_nats=divergence.kl_nats,
            top1=divergence.top1,
            onnxruntime_nmse=None,
        )
        return quality, logits

    def _walk(self, table: F32Array) -> Walk:
        import torch

        from .w8a8_reference import Walk

        def embedded(windows: np.ndarray) -> list[torch.Tensor]:
            return [torch.from_numpy(table[window]) for window in windows]

        return Walk(
            self._job.spec,
            self._job.tables["rope_inv_freq"],
            embedded(self._tokens.calibration),
            embedded(self._tokens.held_out),
        )

    def _quantized(self, walk: Walk, index: int) -> QuantizedLayer:
        prefix = f"layers.{index}."
        items = [item for name, item in self._items.items() if name.startswith(prefix)]
        weights = {item.role: self._read(item.name).reshape(item.shape) for item in items}
        amax = walk.measure(index, weights)
        if self._options.alpha is not None:
            shape = self._job.spec.layers[index]
            smoothed = smoothed_layer(shape, weights, amax, self._options.alpha)
            weights, amax = smoothed.weights, smoothed.input_amax
        matrices = {role: int8_rows(value) for role, value in weights.items() if value.ndim == 2}
        for item in items:
            if item.role in matrices:
                error = matrices[item.role].rel_rms_error(weights[item.role])
                self.matrices.append(ExportedMatrix(str(item.source), "INT8", error))
        scales = {role: np.float32(input_scale(value.max())) for role, value in amax.items()}
        return QuantizedLayer(
            norms={role: value for role, value in weights.items() if value.ndim == 1},
            matrices=matrices,
            input_scales={} if self._options.dynamic else scales,
        )

    def _read(self, name: str) -> F32Array:
        """All rows of a tensor, counted as done. NumericError if one is not finite."""
        item = self._items[name]
        rows = self._job.checkpoint.read_rows(str(item.source), 0, item.rows_cols[0])
        if not np.isfinite(rows).all():
            raise NumericError(
                f"tensor '{item.source}' holds a value that is not finite", code="numeric"
            )
        self._n_done += item.n_weights
        if self._progress is not None:
            n_total = sum(each.n_weights for each in self._items.values())
            self._progress(ConvertProgress(name, self._n_done, n_total, stage="quantize"))
        return rows


def _tokens(
    job: Job, calibration: CalibrationTokens | Sequence[Path], options: W8A8Options
) -> _Tokens:
    if not calibration:
        raise InvalidArgumentError(
            f"{W8A8_KIND} needs calibration text: --calibration FILE", code="invalid_argument"
        )
    if isinstance(calibration, CalibrationTokens):
        if options.n_windows is not None:
            raise InvalidArgumentError(
                "n_windows is for text; calibration tokens come in windows of their own",
                code="invalid_argument",
            )
    else:
        n_tokens = max(8, min(WINDOW_TOKENS, job.spec.n_ctx_train))
        n_windows = (options.n_windows or DEFAULT_WINDOWS) + HELD_OUT_WINDOWS
        wanted = CalibrationOptions(n_windows, n_tokens)
        paths = [Path(path) for path in calibration]
        calibration = text_tokens(job, paths, text_blobs(job), wanted)
    windows = calibration.windows
    if len(windows) <= HELD_OUT_WINDOWS:
        raise InvalidArgumentError(
            f"{len(windows)} windows of calibration tokens; {HELD_OUT_WINDOWS} are held out, so "
            f"{HELD_OUT_WINDOWS + 1} are needed at least",
            code="invalid_argument",
        )
    if int(windows.min()) < 0 or int(windows.max()) >= job.spec.n_vocab:
        raise FormatError(
            f"calibration tokens go from {windows.min()} to {windows.max()}, the model has "
            f"{job.spec.n_vocab}",
            code="tokenizer_invalid",
        )
    return _Tokens(windows[:-HELD_OUT_WINDOWS], windows[-HELD_OUT_WINDOWS:])


def _n_bytes(item: PlannedTensor) -> int:
    """In the graph: int8 for the layers' matrices, float32 for the rest."""
    in_int8 = item.name.startswith("layers.") and len(item.shape) == 2
    return item.n_weights + 4 * item.shape[0] if in_int8 else 4 * item.n_weights


@contextmanager
def _data_file(path: Path, is_needed: bool) -> Iterator[BinaryIO | None]:
    if not is_needed:
        yield None
        return
    with path.open("wb") as file:
        yield file


def _need(package: str, extra: str) -> None:
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"{W8A8_KIND} needs {package}: pip install 'edgellm[{extra}]'",
            code="feature_unsupported",
        ) from error
