"""What a W8A8 model computes, in torch: the oracle of the graph, and how far it is from float32.

Int8 products are summed exactly, in float64. Everything else is Reference's. Layers are walked one
at a time, so that only one layer's weights are in memory. Needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgellm.errors import NumericError

from ..calibrate.walk import INPUT_GROUPS
from ..reference import ALL_ROWS, Reference
from ..spec import ModelSpec
from .smoothquant import INT8_MAX, MIN_TOKEN_AMAX, F32Array, QuantizedLayer

SHARES_INPUT = {role: group[0] for group in INPUT_GROUPS for role in group}


class W8A8Layer(Reference):
    """Layer `index` of a model, quantized: block() is all that works."""

    def __init__(
        self, spec: ModelSpec, inv_freq: Tensor, index: int, layer: QuantizedLayer
    ) -> None:
        prefix = f"layers.{index}."
        norms = {prefix + role: torch.from_numpy(value) for role, value in layer.norms.items()}
        super().__init__(spec, {"rope_inv_freq": inv_freq, **norms})
        self._input_scales = layer.input_scales
        self._codes = {
            role: torch.from_numpy(matrix.codes).double() for role, matrix in layer.matrices.items()
        }
        self._scales = {
            role: torch.from_numpy(matrix.scales) for role, matrix in layer.matrices.items()
        }

    def linear(self, x: Tensor, name: str, rows: slice = ALL_ROWS) -> Tensor:
        assert rows == ALL_ROWS, "models with experts are not exported"
        role = name.rpartition(".")[2]
        if self._input_scales:
            scale = torch.tensor(float(self._input_scales[SHARES_INPUT[role]]))
            return self._product(x, scale, role)
        amax = x.abs().amax(-1, keepdim=True).clamp(min=MIN_TOKEN_AMAX)
        return self._product(x / amax, torch.tensor(float(np.float32(1 / INT8_MAX))), role) * amax

    def _product(self, x: Tensor, scale: Tensor, role: str) -> Tensor:
        codes = torch.round(x / scale).clamp(-INT8_MAX - 1, INT8_MAX)
        return (codes.double() @ self._codes[role].T).float() * (self._scales[role] * scale)


class _Recorder(Reference):
    """Notes the largest magnitude of every channel of every matrix' input."""

    def __init__(self, spec: ModelSpec, weights: dict[str, Tensor]) -> None:
        super().__init__(spec, weights)
        self.amax: dict[str, Tensor] = {}

    def linear(self, x: Tensor, name: str, rows: slice = ALL_ROWS) -> Tensor:
        role = name.rpartition(".")[2]
        if SHARES_INPUT[role] == role:
            largest = x.abs().amax(0)
            seen = self.amax.get(role)
            self.amax[role] = largest if seen is None else torch.maximum(seen, largest)
        return super().linear(x, name, rows)


@dataclass(frozen=True)
class Divergence:
    """Of the quantized model from the float32 one, on text that was not calibrated on."""

    n_tokens: int
    kl_nats: float  # mean KL(float32 || quantized)
    top1: float  # share of tokens with the same most likely successor


class Walk:
    """Hidden states of all windows [n_tokens, d_model] through the float32 model, and of the held
    out ones through the quantized model as well."""

    def __init__(
        self,
        spec: ModelSpec,
        inv_freq: F32Array,
        calibration: list[Tensor],
        held_out: list[Tensor],
    ) -> None:
        self._spec = spec
        self._inv_freq = torch.from_numpy(inv_freq)
        self._calibration = calibration
        self._held_out = held_out
        self._quantized = list(held_out)

    @torch.inference_mode()
    def measure(self, index: int, weights: Mapping[str, F32Array]) -> dict[str, F32Array]:
        """Largest magnitudes of the inputs of layer `index`, by the first role of those that share
        one. Moves the float32 states on to the next layer. NumericError if one is not finite."""
        prefix = f"layers.{index}."
        named = {prefix + role: torch.from_numpy(value) for role, value in weights.items()}
        recorder = _Recorder(self._spec, {"rope_inv_freq": self._inv_freq, **named})
        self._calibration = [recorder.block(x, index) for x in self._calibration]
        amax = {role: value.numpy() for role, value in recorder.amax.items()}
        for role, value in amax.items():
            if not np.isfinite(value).all():
                raise NumericError(
                    f"the inputs of '{prefix}{role}' overflow on the calibration text; the "
                    "checkpoint is damaged",
                    code="numeric",
                )
        plain = Reference(self._spec, recorder.weights)
        self._held_out = [plain.block(x, index) for x in self._held_out]
        return amax

    @torch.inference_mode()
    def advance(self, index: int, layer: QuantizedLayer) -> None:
        """Moves the quantized states on."""
        quantized = W8A8Layer(self._spec, self._inv_freq, index, layer)
        self._quantized = [quantized.block(x, index) for x in self._quantized]

    @torch.inference_mode()
    def divergence(self, norm: F32Array, head: F32Array) -> tuple[Divergence, F32Array]:
        """Also the quantized model's logits [n_tokens, n_vocab] of the first held-out window. head:
        [n_vocab, d_model], the embedding where the head is tied."""
        name = "token_embd" if self._spec.tied_head else "output"
        weights = {"output_norm": torch.from_numpy(norm), name: torch.from_numpy(head)}
        reference = Reference(self._spec, weights)
        kl, same, n_tokens = 0.0, 0, 0
        first: F32Array | None = None
        for full, quantized in zip(self._held_out, self._quantized, strict=True):
            logits = reference.head(quantized)
            first = logits.numpy() if first is None else first
            p, q = reference.head(full).log_softmax(-1), logits.log_softmax(-1)
            kl += float((p.exp() * (p - q)).sum(dtype=torch.float64))
            same += int((p.argmax(-1) == q.argmax(-1)).sum())
            n_tokens += len(p)
        assert first is not None
        return Divergence(n_tokens, kl / n_tokens, same / n_tokens), first
