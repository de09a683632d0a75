"""Settles act "auto": the cheapest rounding of a matrix' inputs that costs its outputs little."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ..plan import Job
from ..quant.activations import activation_error
from ..recipe import ACTS, AUTO_ACT
from ..report import PlannedTensor
from .walk import Walk
from .work import WorkDir

_ACT_BYTES = 8


def settle_act(
    job: Job, work: WorkDir, walk: Walk, item: PlannedTensor, converted: Mapping[str, Tensor]
) -> None:
    """Sets the act of `item` in the job where the recipe says "auto". converted: the weights of the
    layer as they will be decoded."""
    if item.act != AUTO_ACT:
        return
    stored = work.load(f"{item.name}.act", _ACT_BYTES)
    if stored is None:
        index = int(item.name.split(".")[1])
        inputs = walk.sample(index, converted, item.role)
        errors = activation_error(converted[item.name].numpy(), inputs)
        act = cheapest(errors, job.act_error(item))
        stored = np.frombuffer(act.encode().ljust(_ACT_BYTES), dtype=np.uint8)
        work.store(f"{item.name}.act", stored)
    job.settle_act(item.name, stored.tobytes().decode().strip())


def cheapest(errors: Mapping[str, float], limit: float) -> str:
    """The first of a8, a8x2, f32 that formats can have and whose error is within the limit."""
    for act, error in errors.items():
        if act in ACTS and error <= limit:
            return act
    return "f32"
