"""A matrix in an E format that learns: what the forward pass sees is what the packer stores.

w = d_row * s * level, with s a whole number of 7 bits and level one of the format's. Rounding's
derivative is taken to be one (straight-through, Bengio et al. 2013, arXiv:1308.3432). Codes may be
fixed (only scales learn) or follow latent weights, which are places among the levels: a scale moves
the weights and leaves their codes. Which zero point a group has stays as it began. Knows no model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..quant.activations import SMALLEST
from ..quant.methods.gptq import Codes
from ..quant.methods.levels import Levels, levels_of
from ..quant.methods.packing import pack
from ..quant.methods.rounding import codes_of, places_in_cells
from ..quant.tiles import TILE_K, U8Array


class QuantizedMatrix:
    """strips: the start, exactly. with_codes: whether the codes learn, too.

    row_factor, group_factor: parameters [n_rows], [n_rows, n_groups] around 0; d_row and s are the
    start's times one plus them. latent [n_rows, n_cols]: with_codes only; where a weight is among
    the levels, in units of half their widest gap, so that formats and scales need no other rate.
    UnsupportedError for formats without scales.
    """

    def __init__(
        self, format: str, strips: U8Array, n_rows: int, n_cols: int, *, with_codes: bool
    ) -> None:
        self._format, self._levels, self._n_cols = format, levels_of(format), n_cols
        self._start = codes_of(format, strips, n_rows, n_cols)
        self.row_factor = torch.zeros_like(self._start.d_row, requires_grad=True)
        self.group_factor = torch.zeros_like(self._start.scales, requires_grad=True)
        self.latent: Tensor | None = None
        if with_codes:
            places = self._start.levels[:, :n_cols] / _half_gap(self._levels)
            self.latent = places.requires_grad_()

    @torch.no_grad()
    def begin_near(self, original: Tensor, firmness: float) -> None:
        """Latent weights begin as `original` [n_rows, n_cols] in the cells of the file's codes, and
        there moved by `firmness`, 0 to 1, towards the level; they round to the codes still."""
        assert self.latent is not None
        pad = (0, self._start.levels.shape[1] - self._n_cols)
        padded = torch.nn.functional.pad(original, pad)
        places = places_in_cells(padded, self._start, self._levels, firmness)
        self.latent.copy_(places[:, : self._n_cols] / _half_gap(self._levels))

    def weights(self) -> Tensor:
        """[n_rows, n_cols] as decode_matrix(strips()) gives it, bit for bit, and differentiable."""
        d_row = self._start.d_row * (1 + self.row_factor)
        scales = _applied(
            _ThroughRounding, self._start.scales * (1 + self.group_factor), self._levels
        )
        codes = Codes(d_row, scales, self._start.luts, self._level_of_each())
        return codes.dequantized()[:, : self._n_cols]

    @torch.no_grad()
    def strips(self) -> U8Array:
        """What is stored."""
        d_row = self._start.d_row * (1 + self.row_factor)
        scales = self._levels.nearest_scale(self._start.scales * (1 + self.group_factor))
        codes = Codes(d_row, scales, self._start.luts, self._level_of_each())
        return pack(self._format, codes, self._levels)

    def _level_of_each(self) -> Tensor:
        """[n_rows, n_cols padded to tiles]; the padding, which meets zero activations, stays."""
        if self.latent is None:
            return self._start.levels
        luts = _wide(self._start.luts, self._levels)[:, : self._n_cols]
        places = self.latent * _half_gap(self._levels)
        own = _applied(_ToLevels, places, luts, self._levels)
        return torch.cat([own, self._start.levels[:, self._n_cols :]], dim=1)


class _ThroughRounding(torch.autograd.Function):
    """Scales to the nearest that can be stored; beyond the largest nothing pulls further out."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, scales: Tensor, levels: Levels) -> Tensor:
        ctx.save_for_backward(scales.abs() <= 128)
        return levels.nearest_scale(scales)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * inside, None


class _ToLevels(torch.autograd.Function):
    """Places, in units of levels, to the nearest level."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, places: Tensor, luts: Tensor, levels: Levels
    ) -> Tensor:
        level = levels.nearest(places, luts)
        # Beyond the outermost levels nothing pulls further out, nor back.
        ctx.save_for_backward((places - level).abs() <= _half_gap(levels))
        return level

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        (is_inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * is_inside, None, None


def _half_gap(levels: Levels) -> float:
    """How far a weight inside of the outermost levels can be from its own."""
    return 0.5 if levels.lut is None else float((levels.lut[1:] - levels.lut[:-1]).max()) / 2


def _wide(of_groups: Tensor, levels: Levels) -> Tensor:
    return of_groups.repeat_interleave(levels.group, dim=1)


def rounded_inputs(x: Tensor, act: str) -> Tensor:
    """x [..., n_cols] as the runtime's integer kernels take it, bit for bit what
    quant.activations.rounded() says, and the derivative of x itself."""
    return _applied(_RoundedInputs, x, act)


def _applied(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """torch has no types here."""
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _RoundedInputs(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: torch.autograd.function.FunctionCtx, x: Tensor, act: str) -> Tensor:
        wide = torch.nn.functional.pad(x.float(), (0, -x.shape[-1] % TILE_K))
        blocks = wide.view(*wide.shape[:-1], -1, TILE_K)
        amax = blocks.abs().amax(-1, keepdim=True)
        live = amax >= float(SMALLEST)
        inverse = torch.where(live, 127 / torch.where(live, amax, 1.0), 0.0)
        step = torch.where(live, amax / 127, 0.0)
        kept = step * (blocks * inverse).round()
        if act == "a8x2":
            fine = step / 254
            left = torch.where(fine > 0, (blocks - kept) / torch.where(fine > 0, fine, 1.0), 0.0)
            kept = kept + fine * left.round().clamp(-127, 127)
        own: Tensor = kept.flatten(-2)[..., : x.shape[-1]]
        return own.to(x.dtype)

    @staticmethod
    def backward(_ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
