"""The optimizers of a run, and their state as named tensors.

AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101), and for the layers' matrices, where a recipe
asks for it, Muon (Jordan et al. 2024), whose steps are scaled to the size of AdamW's (Liu et al.
2025, arXiv:2502.16982). Written out here, so that every sum has one order and the state is two
tensors a parameter. Knows no model beyond its parameters' names and shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgellm.errors import FormatError

from .recipe import OptimizerOptions

MUON_MOMENTUM = 0.95
# A polynomial that moves singular values in (0, 1] to about one: x (a + b x^2 + c x^4), five times.
_NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
_MUON_STEPS = 5
_MUON_RMS = 0.2  # of AdamW's steps


@dataclass(frozen=True)
class Learnt:
    """A parameter. rate: of it, before the schedule. decays: by weight decay. is_matrix: Muon may
    take it."""

    value: Tensor
    rate: float
    decays: bool
    is_matrix: bool = False


class Optimizer:
    """AdamW for all parameters, or Muon for some and AdamW for the rest."""

    def __init__(self, learnt: Mapping[str, Learnt], options: OptimizerOptions) -> None:
        self._learnt, self._options = learnt, options
        self._n_steps = 0
        self._state = {
            f"{name}/{key}": torch.zeros_like(parameter.value, requires_grad=False)
            for name, parameter in learnt.items()
            for key in (("momentum",) if self._by_muon(parameter) else ("mean", "square"))
        }

    @torch.no_grad()
    def step(self, share: float) -> float:
        """One step at `share` of every rate -> the norm of the gradient before it is clipped.
        Gradients are used up."""
        grads = {
            name: parameter.value.grad
            for name, parameter in self._learnt.items()
            if parameter.value.grad is not None
        }
        norm = math.sqrt(sum(float(grad.double().square().sum()) for grad in grads.values()))
        clip = self._options.clip
        if 0 < clip < norm:
            for grad in grads.values():
                grad.mul_(clip / norm)
        self._n_steps += 1
        for name, grad in grads.items():
            parameter = self._learnt[name]
            move = self._muon if self._by_muon(parameter) else self._adamw
            rate = parameter.rate * share
            if parameter.decays:
                parameter.value.mul_(1 - rate * self._options.weight_decay)
            parameter.value.sub_(move(name, grad), alpha=rate)
            parameter.value.grad = None
        return norm

    def state(self) -> dict[str, Tensor]:
        """What load() goes back to."""
        return {"n_steps": torch.tensor(self._n_steps), **self._state}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """FormatError where it is not this optimizer's."""
        missing = sorted(self._state.keys() ^ (state.keys() - {"n_steps"}))
        wrong = [
            name
            for name in self._state
            if state.get(name, self._state[name]).shape != self._state[name].shape
        ]
        if missing or wrong or "n_steps" not in state:
            name = (missing or wrong or ["n_steps"])[0]
            raise FormatError(
                f"the saved state of '{name}' is not this run's; remove the run's folder",
                code="tensor_missing",
            )
        self._n_steps = int(state["n_steps"])
        for name, value in self._state.items():
            value.copy_(state[name])

    def _by_muon(self, parameter: Learnt) -> bool:
        return self._options.name == "muon" and parameter.is_matrix

    def _adamw(self, name: str, grad: Tensor) -> Tensor:
        options = self._options
        mean, square = self._state[f"{name}/mean"], self._state[f"{name}/square"]
        mean.lerp_(grad, 1 - options.beta1)
        square.mul_(options.beta2).addcmul_(grad, grad, value=1 - options.beta2)
        # Both begin at zero, which biases them towards it.
        seen = 1 - options.beta1**self._n_steps, 1 - options.beta2**self._n_steps
        step: Tensor = (mean / seen[0]) / ((square / seen[1]).sqrt_() + options.epsilon)
        return step

    def _muon(self, name: str, grad: Tensor) -> Tensor:
        momentum = self._state[f"{name}/momentum"]
        momentum.lerp_(grad, 1 - MUON_MOMENTUM)
        step = orthogonalized(grad.lerp(momentum, MUON_MOMENTUM))
        return step * (_MUON_RMS * math.sqrt(max(step.shape)))


def orthogonalized(matrix: Tensor) -> Tensor:
    """U V^T of the matrix's singular value decomposition, nearly: singular values of 0.7 to 1.2."""
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(_MUON_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
