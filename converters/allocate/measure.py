"""The passes: KL(original || only a group of tensors changed) on held-out tokens.

Original hidden states are walked through the layers once; a pass starts at the first layer that it
changes. Knows no sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgellm.errors import FormatError

from ..calibrate.work import WorkDir
from ..divergence import HeldOut, PlannedWeights, Weights
from ..quant import decode_matrix
from ..recipe import EMBED_ROLE, HEAD_ROLE
from ..report import PlannedTensor
from .cache import MeasuredCache
from .losses import StepFn
from .passes import Group
from .sensitivity import KL, strips_name, tensor_size


def measure_groups(
    held_out: HeldOut,
    original: PlannedWeights,
    groups: Sequence[Group],
    items: dict[str, PlannedTensor],
    cache: MeasuredCache,
    work: WorkDir,
    progress: StepFn,
) -> None:
    """The divergence of every group and anchor into `cache`; their strips are in `work`."""
    hidden = original.embed(held_out.windows)
    layer = 0
    for group in sorted(groups, key=lambda group: group.first_layer):
        todo = [f for f in group.anchors if cache.get(KL, group.name, f) is None]
        if not todo:
            continue
        for index in range(layer, group.first_layer):
            hidden = held_out.advance(hidden, index, original.layer(index))
        layer = max(layer, group.first_layer)
        for format in todo:
            progress("pass", f"{group.name} {format}")
            changed = {
                name: _decoded(items[name], format, cache, work, group) for name in group.tensors
            }
            kl = _one_pass(held_out, original, hidden, layer, changed)
            cache.put(KL, group.name, format, kl)


def _one_pass(
    held_out: HeldOut,
    original: PlannedWeights,
    hidden: Tensor,
    layer: int,
    changed: Weights,
) -> float:
    def weights(index: int) -> Weights:
        here = original.layer(index)
        return {name: changed.get(name, value) for name, value in here.items()}

    tied = held_out.spec.tied_head
    head = dict(original.head())
    if EMBED_ROLE in changed:
        ids = torch.from_numpy(held_out.windows.astype(np.int64))
        hidden = changed[EMBED_ROLE][ids]
        if tied:
            head[HEAD_ROLE] = changed[EMBED_ROLE]
    elif HEAD_ROLE in changed:
        head[HEAD_ROLE] = changed[HEAD_ROLE]
    return held_out.divergence(held_out.run(hidden, layer, weights), head).kl


def _decoded(
    item: PlannedTensor, format: str, cache: MeasuredCache, work: WorkDir, group: Group
) -> Tensor:
    strips = work.load(strips_name(item.name, format), tensor_size(item, format))
    if strips is None:
        raise FormatError(
            f"{item.name}: its strips of the pass '{group.name}' are gone from {cache.folder}; "
            "run again",
            code="file_unreadable",
        )
    decoded = decode_matrix(format, strips, *item.rows_cols)
    return torch.from_numpy(np.ascontiguousarray(decoded))
