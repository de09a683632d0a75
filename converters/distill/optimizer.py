"""The optimizers of a run, and their state as named tensors.

AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101); Muon (Jordan et al. 2024), torch's, for the
layers' matrices, its rate scaled to AdamW's (Liu et al. 2025, arXiv:2502.16982). Knows no model
beyond its parameters' names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgellm.errors import FormatError

from .recipe import OptimizerOptions


@dataclass(frozen=True)
class Learnt:
    """A parameter. rate: of it, before the schedule. decays: by weight decay."""

    value: Tensor
    rate: float
    decays: bool
    is_matrix: bool = False


class Optimizer:
    """AdamW for all parameters, or Muon for some and AdamW for the rest."""

    def __init__(self, learnt: Mapping[str, Learnt], options: OptimizerOptions) -> None:
        self._learnt, self._options = learnt, options
        by_muon = {n for n, p in learnt.items() if options.name == "muon" and p.is_matrix}
        self._optimizers: list[torch.optim.Optimizer] = []
        self._rates: list[list[float]] = []
        if by_muon:
            self._add(by_muon, self._muon)
        if len(by_muon) < len(learnt):
            self._add(set(learnt) - by_muon, self._adamw)

    def step(self, share: float) -> float:
        """One step at `share` of every rate -> the norm of the gradient before it is clipped."""
        values = [p.value for p in self._learnt.values()]
        clip = self._options.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(values, clip))
        for optimizer, rates in zip(self._optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Tensor]:
        """What load() goes back to, by parameter and torch's name for it."""
        return {
            f"{name}/{key}": value for name, state in self._states() for key, value in state.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """FormatError where it is not this optimizer's."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for full, value in state.items():
            name, _, key = full.rpartition("/")
            by_name.setdefault(name, {})[key] = value
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    name = self._name(parameter)
                    found = by_name.pop(name, None)
                    shapes = {v.shape for v in (found or {}).values()}
                    if found is None or shapes - {parameter.shape, torch.Size([])}:
                        raise FormatError(
                            f"the state of '{name}' is missing or of another shape; the run's "
                            "folder is of another recipe: choose another `work`",
                            code="tensor_missing",
                        )
                    optimizer.state[parameter] = dict(found)
        if by_name:
            name = next(iter(by_name))
            raise FormatError(f"'{name}' is no parameter of this run", code="tensor_unexpected")

    def _states(self) -> list[tuple[str, dict[str, Tensor]]]:
        return [
            (self._name(parameter), optimizer.state[parameter])
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def _name(self, parameter: Tensor) -> str:
        return next(name for name, p in self._learnt.items() if p.value is parameter)

    def _add(self, names: set[str], make: type | object) -> None:
        groups: dict[tuple[float, bool], list[Tensor]] = {}
        for name, parameter in self._learnt.items():
            if name in names:
                groups.setdefault((parameter.rate, parameter.decays), []).append(parameter.value)
        decay = self._options.weight_decay
        listed = [
            {"params": values, "lr": rate, "weight_decay": decay if decays else 0.0}
            for (rate, decays), values in groups.items()
        ]
        self._optimizers.append(make(listed))  # type: ignore[operator]
        self._rates.append([group["lr"] for group in listed])  # type: ignore[misc]

    def _adamw(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        options = self._options
        betas = (options.beta1, options.beta2)
        return torch.optim.AdamW(groups, betas=betas, eps=options.epsilon, foreach=False)

    def _muon(self, groups: list[dict[str, object]]) -> torch.optim.Optimizer:
        return torch.optim.Muon(groups, adjust_lr_fn="match_rms_adamw")
