"""A pruned model as a Hugging Face directory, in the source's dtypes. Tensor by tensor; whole or
not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import archs
from ..archs import TensorSource
from ..checkpoint import Checkpoint
from ..distill.save import put_together
from ..export.shards import ShardWriter, StoredTensor
from ..export.whole import check_target, whole_directory
from ..plan import Job
from ..spec import ModelSpec
from ..views import read_stored
from .cut import Cut, kept_places
from .vocabulary import write_text_files

F32Array = npt.NDArray[np.float32]
Change = Callable[[TensorSource, F32Array], F32Array]


@dataclass(frozen=True)
class Pruned:
    """A model to be written. change: of a tensor of the source, before it is cut."""

    job: Job
    cut: Cut
    config: dict[str, Any]
    generation: dict[str, Any]
    spec: ModelSpec
    change: Change | None = None


def write_pruned(pruned: Pruned, out: Path) -> None:
    """FormatError where `out` exists or cannot be written."""
    job = pruned.job
    pairs = list(_pairs(pruned))
    dtypes = {name: _dtype(job.checkpoint, old) for new, old in pairs for name in new.stored}
    planned = {
        name: StoredTensor(name, dtypes[name], shape)
        for new, _ in pairs
        for name, shape in new.stored.items()
    }
    check_target(out, sum(tensor.n_bytes for tensor in planned.values()))
    old_of = {new.name: old for new, old in pairs}

    def values(new: TensorSource) -> F32Array:
        old = old_of[new.name]
        whole = read_stored(job.checkpoint, old.shape, old.view)
        if pruned.change is not None:
            whole = pruned.change(old, whole)
        return kept_places(job.spec, pruned.cut, _layer_of(new), new.role).of(whole)

    with whole_directory(out) as folder:
        _write_json(folder / "config.json", pruned.config)
        if pruned.generation:
            _write_json(folder / "generation_config.json", pruned.generation)
        write_text_files(job, pruned.cut.tokens, folder)
        with ShardWriter(folder, planned.values()) as writer:
            for name, array in put_together([new for new, _ in pairs], values):
                writer.write(name, 0, _encoded(array, planned[name].dtype))


def _pairs(pruned: Pruned) -> list[tuple[TensorSource, TensorSource]]:
    """Every tensor of the pruned model with that of the source which it is cut from."""
    job = pruned.job
    old = {
        source.name: source
        for source in job.arch.tensors(job.spec, job.config, job.checkpoint.tensors)
    }
    pairs = []
    for new in archs.find(pruned.config).tensors(pruned.spec, pruned.config, ()):
        layer = _layer_of(new)
        name = new.name
        if layer is not None:
            name = f"layers.{pruned.cut.layers[layer].index}.{new.role}"
        pairs.append((new, old[name]))
    return pairs


def _layer_of(source: TensorSource) -> int | None:
    return int(source.name.split(".")[1]) if source.name.startswith("layers.") else None


def _dtype(checkpoint: Checkpoint, source: TensorSource) -> str:
    """Of all that a tensor is made of; F32 where that is packed or differs."""
    dtypes = {checkpoint.tensors[name].dtype for name in source.stored}
    is_plain = not any(checkpoint.is_packed(name) for name in source.stored)
    known = dtypes & {"F16", "BF16"}
    return known.pop() if is_plain and len(dtypes) == 1 and known else "F32"


def _encoded(values: F32Array, dtype: str) -> npt.NDArray[Any]:
    """values came from this dtype, so nothing is rounded."""
    if dtype == "F16":
        return values.astype("<f2")
    if dtype == "BF16":
        return (np.ascontiguousarray(values).view(np.uint32) >> np.uint32(16)).astype("<u2")
    return values.astype("<f4", copy=False)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
