"""Ways to choose the codes of one matrix, behind one interface: quantize() and its Method.

A method sees weights, a format and what calibration measured of the matrix's inputs; it gives
strips. Those that need torch import it on first use. Knows no checkpoint, no model and no file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgellm.errors import InvalidArgumentError, NumericError, UnsupportedError

from .. import encode_matrix, quant_format
from ..tiles import F32Array, U8Array

MAX_WEIGHT = 2.0**96  # as the native encoder: no d_row * s * v can overflow


@dataclass(frozen=True)
class InputStats:
    """What calibration measured of the inputs x of one matrix.

    moments: E[x x^T], float32 [n_cols, n_cols], of the inputs that the converted model will see.
    drift: E[(x_full - x) x^T], x_full being the original model's input; None where not measured.
    """

    moments: F32Array
    drift: F32Array | None = None

    @property
    def importance(self) -> F32Array:
        """E[x_j^2] of every column."""
        return np.ascontiguousarray(np.diagonal(self.moments)).clip(min=0)


@dataclass(frozen=True)
class Method:
    """A named method with its parameters, as a recipe's rule chooses it.

    rtn: nearest level, the scales searched for the least squared error. importance: the same,
    weighted by E[x_j^2]. grid: weights that lie on a 4-bit grid already (methods/grid.py); L4_32
    only. gptq, gptaq: methods/gptq.py; gptaq aims at the original model's outputs
    from the converted model's inputs (Li et al. 2025, arXiv:2504.02692). autoround: rounding.py and
    calibrate/tune.py; a whole layer at a time, beginning with the codes that method `start` chose.
    damping, n_passes: see GptqOptions. drift: share of the input drift that gptaq makes up for.
    n_steps, batch_windows: of autoround's descent; reach: how far an offset can go in all of it,
    in distances between levels. A parameter that a method does not have stays at its default.
    """

    name: str = "rtn"
    damping: float = 0.01
    n_passes: int = 3
    drift: float = 0.75
    start: str = "gptaq"
    n_steps: int = 100
    batch_windows: int = 4
    reach: float = 0.5

    def __post_init__(self) -> None:
        for key, known in (("method", METHODS), ("start", STARTS)):
            name = self.name if key == "method" else self.start
            if name not in known:
                raise InvalidArgumentError(
                    f"{key} '{name}' is not known (known: {', '.join(known)})",
                    code="invalid_argument",
                )
        if not 0 < self.damping <= 1 or not 0 <= self.n_passes <= 100 or not 0 <= self.drift <= 1:
            raise InvalidArgumentError(
                "a method takes 0 < damping <= 1, 0 <= n_passes <= 100, 0 <= drift <= 1",
                code="invalid_argument",
            )
        sizes_ok = 1 <= self.n_steps <= 100_000 and 1 <= self.batch_windows <= 1 << 16
        if not sizes_ok or not 0 < self.reach <= 1:
            raise InvalidArgumentError(
                "autoround takes 1 <= n_steps <= 100000, 1 <= batch_windows <= 65536, "
                "0 < reach <= 1",
                code="invalid_argument",
            )

    @property
    def parameters(self) -> dict[str, str | int | float]:
        """Those that the method has, by name."""
        return {name: getattr(self, name) for name in parameter_names(self.name, self.start)}

    @property
    def first(self) -> Method:
        """What chooses the codes that autoround begins with; any other method itself."""
        return replace(self, name=self.start) if self.tunes_layers else self

    @property
    def needs_stats(self) -> bool:
        return self.name not in ("rtn", "grid")

    @property
    def needs_drift(self) -> bool:
        return self.first.name == "gptaq"

    @property
    def without_drift(self) -> Method:
        """gptq in place of gptaq."""
        if not self.needs_drift:
            return self
        return replace(self, start="gptq") if self.tunes_layers else replace(self, name="gptq")

    @property
    def tunes_layers(self) -> bool:
        return self.name == "autoround"

    @property
    def needs_original(self) -> bool:
        """Whether the original model is walked beside the converted one."""
        return self.needs_drift or self.tunes_layers


STARTS = ("rtn", "importance", "gptq", "gptaq")
METHODS = (*STARTS, "autoround", "grid")
_PARAMETERS = {
    "rtn": (),
    "grid": (),
    "importance": (),
    "gptq": ("damping", "n_passes"),
    "gptaq": ("damping", "n_passes", "drift"),
}


def parameter_names(name: str, start: str) -> tuple[str, ...]:
    """The parameters of method `name`, which begins with `start` where it is autoround."""
    if name != "autoround":
        return _PARAMETERS[name]
    return ("start", "n_steps", "batch_windows", "reach", *_PARAMETERS[start])


def quantize(
    weights: F32Array,
    format: str,
    method: Method,
    stats: InputStats | None,
    n_threads: int,
    dtype: str = "F32",
) -> U8Array:
    """[n_rows, n_cols] float32 -> strips; the same bytes for any n_threads (at least 1).

    dtype: in which the checkpoint stores the weights, for grid. NumericError: weights or statistics
    that are not finite. InvalidArgumentError: statistics missing, or a method that needs a whole
    layer. UnsupportedError: a method that the format does not have, weights off the grid, or no
    torch.
    """
    if method.name == "grid":
        return _grid(weights, format, dtype)
    if method.tunes_layers:
        raise InvalidArgumentError(
            f"method '{method.name}' needs a whole layer, not one matrix", code="invalid_argument"
        )
    if method.name == "rtn":
        return encode_matrix(format, weights, None, n_threads)
    if stats is None:
        raise InvalidArgumentError(
            f"method '{method.name}' needs calibration text", code="invalid_argument"
        )
    check_format(method, format)
    _check(weights, stats)
    if method.name == "importance":
        return encode_matrix(format, weights, stats.importance, n_threads)
    return _gptq(weights, format, method, stats, n_threads)


def check_format(method: Method, format: str) -> None:
    """UnsupportedError where a method cannot choose the codes of a format."""
    allowed = {
        "rtn": True,
        "grid": format == "L4_32",
        "importance": format not in ("L8_32", "F16"),
    }.get(method.name, quant_format(format).pack is not None)
    if not allowed:
        raise UnsupportedError(
            f"method '{method.name}' cannot choose the codes of format '{format}'; "
            + ("'grid' is for L4_32" if method.name == "grid" else "its method must be 'rtn'"),
            code="tensor_format",
        )


def _grid(weights: F32Array, format: str, dtype: str) -> U8Array:
    from .grid import find_grid, off_grid

    check_format(Method("grid"), format)
    found = find_grid(weights, dtype)
    if not found.is_on.all():
        raise off_grid(int((~found.is_on).sum()), found.is_on.size, dtype)
    return found.strips()


def _check(weights: F32Array, stats: InputStats) -> None:
    n_cols = weights.shape[1]
    for name, value in (("moments", stats.moments), ("drift", stats.drift)):
        if value is None:
            continue
        if value.shape != (n_cols, n_cols):
            raise InvalidArgumentError(
                f"{name} are {list(value.shape)}, {n_cols} columns need [{n_cols}, {n_cols}]",
                code="invalid_argument",
            )
        if not np.isfinite(value).all():
            raise NumericError(f"{name}: a value is not finite; recalibrate", code="numeric")
    bad = ~(np.abs(weights) <= MAX_WEIGHT)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise NumericError(
            f"weight at row {row}, column {column} is {weights[row, column]}; the checkpoint is "
            "damaged",
            code="numeric",
        )


def _gptq(
    weights: F32Array, format: str, method: Method, stats: InputStats, n_threads: int
) -> U8Array:
    from .packing import gptq_strips

    if method.needs_drift and stats.drift is None:
        raise InvalidArgumentError("gptaq needs the drift of the inputs", code="invalid_argument")
    return gptq_strips(weights, format, method, stats, n_threads)
