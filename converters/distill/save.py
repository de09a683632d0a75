"""Trained weights as a Hugging Face directory: the student's own, with other numbers in it.

views.py backwards: each stored tensor is put together from ours, so that every family that can be
read can be written. float32. Appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgellm.errors import UnsupportedError

from ..archs import TensorSource
from ..checkpoint import Checkpoint
from ..export.shards import ShardWriter, StoredTensor
from ..export.whole import check_target, whole_directory
from ..extras import INPUT_FILES
from ..plan import Job
from ..views import Part, View

if TYPE_CHECKING:
    from torch import Tensor

F32Array = npt.NDArray[np.float32]
_NOT_COPIED = ("config.json", "model.safetensors.index.json")


def save_checkpoint(
    checkpoint: Checkpoint, job: Job, weights: Mapping[str, Tensor], out: Path
) -> None:
    """weights: by our names. UnsupportedError where a stored tensor is not covered by ours."""
    stored = stored_tensors(job, weights)
    check_target(out, sum(array.nbytes for array in stored.values()))
    with whole_directory(out) as folder:
        config = {**checkpoint.config, "dtype": "float32", "torch_dtype": "float32"}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        for name in INPUT_FILES:
            path = checkpoint.directory / name
            if name not in _NOT_COPIED and path.exists():
                (folder / name).write_bytes(path.read_bytes())
        planned = [StoredTensor(name, "F32", array.shape) for name, array in stored.items()]
        with ShardWriter(folder, planned) as writer:
            for name, array in stored.items():
                writer.write(name, 0, array)


def stored_tensors(job: Job, weights: Mapping[str, Tensor]) -> dict[str, F32Array]:
    """By the checkpoint's names."""

    def values(source: TensorSource) -> F32Array:
        return _untransformed(source.view, weights[source.name].detach().numpy())

    sources = job.arch.tensors(job.spec, job.config, job.checkpoint.tensors)
    return dict(put_together(sources, values))


def put_together(
    sources: Iterable[TensorSource], values: Callable[[TensorSource], F32Array]
) -> Iterator[tuple[str, F32Array]]:
    """Stored tensors, each when all of it is there. values: of a source, as it is stored."""
    stored: dict[str, F32Array] = {}
    filled: dict[str, int] = {}
    used: set[str] = set()
    for source in sources:
        if source.source in used:
            continue
        used.add(source.source)
        rows_of_all = values(source)
        row0 = 0
        for part in source.view.parts:
            rows = rows_of_all[row0 : row0 + part.n_rows]
            row0 += part.n_rows
            if part.stored is None:
                continue
            whole = stored.setdefault(part.stored, np.zeros(part.shape, dtype=np.float32))
            _put(whole, part, rows)
            filled[part.stored] = filled.get(part.stored, 0) + rows.size
            if filled[part.stored] == whole.size:
                yield part.stored, stored.pop(part.stored)
    if stored:
        raise UnsupportedError(
            f"tensor '{next(iter(stored))}' of the checkpoint is used in part or more than once; a "
            "model of this family cannot be written back",
            code="tensor_unexpected",
        )


def _put(whole: F32Array, part: Part, rows: F32Array) -> None:
    if part.transposed and rows.ndim == 1:
        whole[:] = rows.reshape(-1, whole.shape[0]).T.reshape(whole.shape)
        return
    if part.transposed:
        whole[:, part.row0 : part.row0 + part.n_rows] = rows.T
        return
    flat = whole.reshape(-1, whole.shape[-1]) if whole.ndim == 3 else whole
    flat[part.row0 : part.row0 + part.n_rows] = rows


def _untransformed(view: View, values: F32Array) -> F32Array:
    values = values - np.float32(view.offset) if view.offset else values
    return values / np.float32(view.scale) if view.scale != 1 else values
