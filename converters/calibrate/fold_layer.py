"""The scalings that a recipe asks for in one layer: searched, kept in the work directory, folded.

Searched on the layer's original weights and the inputs that the converted model gives it, before
any matrix of the layer is quantized. Knows no method and no byte layout of strips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from ..fold import consumers
from ..plan import Job
from ..quant.tiles import F32Array
from ..recipe import AUTO_ACT
from ..report import PlannedTensor
from .scaling import Consumer, Input, best_factors
from .stats_cache import StatsCache
from .walk import Walk
from .work import WorkDir


def fold_layer(job: Job, work: WorkDir, walk: Walk, index: int, cache: StatsCache) -> None:
    """Sets the factors of layer `index` in job.folds: all 1 where scaling does not help."""
    prefix = f"layers.{index}."
    if index in job.rotation.layers:
        cache.chosen(prefix + "attn_v", "rotation", np.empty(0, dtype=np.uint8))
    items = {item.role: item for item in job.planned if item.name.startswith(prefix)}
    rows: dict[str, F32Array] = {}
    for producer_role, roles in consumers(job.spec.layers[index]).items():
        kind = job.scale(items[roles[0]])
        if kind is None:
            continue
        producer = prefix + producer_role
        n_factors = job.folds.width(producer)
        stored = work.load(f"{producer}.scale", 4 * n_factors)
        if stored is None:
            if not rows:
                rows = {role: _unfolded(job, item) for role, item in items.items()}
            readers = [items[role] for role in roles]
            factors = _search(job, walk, index, producer, readers, rows, kind, cache)
            stored = factors.astype("<f4").view(np.uint8)
            work.store(f"{producer}.scale", stored)
        cache.chosen(producer, "scale", stored)
        job.folds.set(producer, stored.view("<f4"))


def _unfolded(job: Job, item: PlannedTensor) -> F32Array:
    return job.unscaled_rows(item, 0, item.rows_cols[0])


def _likely_act(item: PlannedTensor) -> str:
    """Act "auto" is settled after the scales, and for a8 wherever they do their work."""
    return "a8" if item.act == AUTO_ACT else item.act or "f32"


def _search(
    job: Job,
    walk: Walk,
    index: int,
    producer: str,
    readers: Sequence[PlannedTensor],
    rows: Mapping[str, F32Array],
    kind: str,
    cache: StatsCache,
) -> F32Array:
    weights = {
        f"layers.{index}.{role}": torch.from_numpy(values[0] if role.endswith("norm") else values)
        for role, values in rows.items()
    }
    group = [item.role for item in readers]
    place, n_cols = f"layers.{index}.{group[0]}.unfolded", readers[0].rows_cols[1]
    measure = partial(walk.measure, index, weights, weights, group)
    x = Input(
        cache.found(place, n_cols, walk.keeps_full, measure)(),
        walk.sample(index, weights, group[0]),
        job.folds.owners(producer),
    )
    consumers = [
        Consumer(rows[item.role], item.format, job.method(item), _likely_act(item))
        for item in readers
    ]
    found = best_factors(kind, consumers, x, walk.n_threads)
    return np.ones(job.folds.width(producer), dtype=np.float32) if found is None else found
