"""Settles act "auto": the cheapest rounding of a matrix' inputs that costs the model little.

What it costs is measured: KL(model || model with these inputs rounded), on the first calibration
windows. The model is what there is at this layer: converted up to it, original behind it. Knows no
byte layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from ..divergence import HeldOut, PlannedWeights, original_weights
from ..plan import Job
from ..quant.activations import ROUNDED_ACTS, rounded
from ..recipe import AUTO_ACT
from ..reference import ALL_ROWS, Reference
from ..report import PlannedTensor
from ..spec import ModelSpec
from .tokens import Tokens
from .walk import Walk
from .work import WorkDir

ACT_WINDOWS = 4
_ACT_BYTES = 8


class ActSettler:
    """windows: of the calibration text, [n_windows, window_tokens]."""

    def __init__(self, job: Job, work: WorkDir, windows: Tokens, n_threads: int) -> None:
        self._job, self._work, self._n_threads = job, work, n_threads
        self._windows = windows[:ACT_WINDOWS]

    def settle_layer(self, walk: Walk, index: int, converted: Mapping[str, Tensor]) -> None:
        """Sets the acts of layer `index` in the job where the recipe says "auto", before `walk`
        goes through it. converted: the layer's weights as they will be decoded."""
        prefix = f"layers.{index}."
        named = (item for item in self._job.planned if item.name.startswith(prefix))
        items = [item for item in named if item.act == AUTO_ACT]
        stored = {item.name: self._work.load(_file_of(item), _ACT_BYTES) for item in items}
        acts = {
            name: act.tobytes().decode().strip() for name, act in stored.items() if act is not None
        }
        if len(acts) < len(items):
            acts = self._chosen(items, walk.hidden[: len(self._windows)], index, converted)
            for item in items:
                padded = acts[item.name].encode().ljust(_ACT_BYTES)
                self._work.store(_file_of(item), np.frombuffer(padded, dtype=np.uint8))
        for name, act in acts.items():
            self._job.settle_act(name, act)

    def _chosen(
        self,
        items: list[PlannedTensor],
        hidden: Tensor,
        index: int,
        converted: Mapping[str, Tensor],
    ) -> dict[str, str]:
        def final(acts: Mapping[str, str]) -> Tensor:
            model = partial(_Rounding, acts=acts)
            after = self._seen.advance(hidden, index, converted, model)
            return self._seen.run(after, index + 1, self._original.layer)

        base = final({})

        def kl(acts: Mapping[str, str]) -> float:
            return self._seen.divergence(final(acts), self._original.head(), base).kl

        limits = {item.name: self._job.act_kl(item) for item in items}
        cheapest = dict.fromkeys(limits, ROUNDED_ACTS[0])
        if kl(cheapest) <= min(limits.values()):  # all at once: no more than one by itself may cost
            return cheapest
        return {
            name: next((act for act in ROUNDED_ACTS if kl({name: act}) <= limit), "f32")
            for name, limit in limits.items()
        }

    @cached_property
    def _original(self) -> PlannedWeights:
        return original_weights(self._job)

    @cached_property
    def _seen(self) -> HeldOut:
        job = self._job
        return HeldOut(job.spec, job.tables, self._windows, self._original, self._n_threads)


class _Rounding(Reference):
    """Rounds the inputs of some matrices. acts: by their names."""

    def __init__(
        self, spec: ModelSpec, weights: dict[str, Tensor], acts: Mapping[str, str]
    ) -> None:
        super().__init__(spec, weights)
        self._acts = acts

    def linear(self, x: Tensor, name: str, rows: slice = ALL_ROWS) -> Tensor:
        if name in self._acts:
            x = torch.from_numpy(rounded(x.numpy(), self._acts[name]))
        return super().linear(x, name, rows)


def _file_of(item: PlannedTensor) -> str:
    return f"{item.name}.act"
