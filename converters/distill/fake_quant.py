"""A matrix in an E format that learns: what the forward pass sees is what the packer stores.

w = d_row * s * level, with s a whole number of 7 bits and level one of the format's. Rounding's
derivative is taken to be one (straight-through, Bengio et al. 2013, arXiv:1308.3432), so that a
scale's gradient is that of LSQ (Esser et al. 2019, arXiv:1902.08153). Codes may be fixed (only
scales learn) or follow latent weights. Which zero point a group has stays as it began. Knows no
model.
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
    start's times one plus them. latent [n_rows, n_cols]: parameter of weights, with_codes only.
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
            self.latent = self._start.dequantized()[:, :n_cols].clone().requires_grad_()

    @torch.no_grad()
    def begin_near(self, original: Tensor, firmness: float) -> None:
        """Latent weights begin as `original` [n_rows, n_cols] in the cells of the file's codes, and
        there moved by `firmness`, 0 to 1, towards the level; they round to the codes still."""
        assert self.latent is not None
        pad = (0, self._start.levels.shape[1] - self._n_cols)
        padded = torch.nn.functional.pad(original, pad)
        places = places_in_cells(padded, self._start, self._levels, firmness)
        step = self._start.d_row[:, None] * _wide(self._start.scales, self._levels)
        self.latent.copy_((places * step)[:, : self._n_cols])

    def weights(self) -> Tensor:
        """[n_rows, n_cols] as decode_matrix(strips()) gives it, bit for bit, and differentiable."""
        d_row = self._start.d_row * (1 + self.row_factor)
        scales = _applied(
            _ThroughRounding, self._start.scales * (1 + self.group_factor), self._levels
        )
        if self.latent is None:
            start = Codes(d_row, scales, self._start.luts, self._start.levels)
            return start.dequantized()[:, : self._n_cols]
        padded = self._padded(self.latent)
        weights = _applied(_ToLevels, padded, d_row, scales, self._start, self._levels)
        return weights[:, : self._n_cols]

    @torch.no_grad()
    def strips(self) -> U8Array:
        """What is stored."""
        d_row = self._start.d_row * (1 + self.row_factor)
        scales = self._levels.nearest_scale(self._start.scales * (1 + self.group_factor))
        levels = self._start.levels
        if self.latent is not None:
            places = _places(self._padded(self.latent), d_row, scales, self._start, self._levels)
            levels = self._levels.nearest(places, _wide(self._start.luts, self._levels))
        return pack(self._format, Codes(d_row, scales, self._start.luts, levels), self._levels)

    def _padded(self, latent: Tensor) -> Tensor:
        """Columns to whole tiles: those that are there, which meet zero activations."""
        return torch.cat([latent, self._start.dequantized()[:, self._n_cols :]], dim=1)


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
    """Latent weights, d_row and whole scales -> weights on the format's levels."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        latent: Tensor,
        d_row: Tensor,
        scales: Tensor,
        start: Codes,
        levels: Levels,
    ) -> Tensor:
        place = _places(latent, d_row, scales, start, levels)
        level = levels.nearest(place, _wide(start.luts, levels))
        # Beyond the outermost levels a weight is held, and its pull goes to the scale.
        is_free = (place - level).abs() <= _half_gap(levels)
        ctx.save_for_backward(level - place * is_free, is_free, d_row, scales)
        return Codes(d_row, scales, start.luts, level).dequantized()

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        by_step, is_free, d_row, scales = ctx.saved_tensors  # type: ignore[attr-defined]
        of_groups = (grad * by_step).view(*scales.shape, -1).sum(-1)
        by_row = (of_groups * scales).sum(-1)
        return grad * is_free, by_row, of_groups * d_row[:, None], None, None


def _half_gap(levels: Levels) -> float:
    """How far a weight inside of the outermost levels can be from its own."""
    return 0.5 if levels.lut is None else float((levels.lut[1:] - levels.lut[:-1]).max()) / 2


def _places(latent: Tensor, d_row: Tensor, scales: Tensor, start: Codes, levels: Levels) -> Tensor:
    """Weights in units of levels; in a row of zeros, the levels that are there."""
    step = d_row[:, None] * _wide(scales, levels)
    return torch.where(step == 0, start.levels, latent / torch.where(step == 0, 1.0, step))


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
