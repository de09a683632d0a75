"""Vectors of tiny models by the runtime; imports neither torch nor converters.

`python vectors.py OUT FILE.edge ...` writes OUT/<stem>.npy for each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import edgellm
from edgellm.embedding import POOLINGS
from golden.families import family_ids

LENGTHS = (88, 33, 1)


def texts_of(name: str) -> list[list[int]]:
    return [family_ids(name)[-n:] for n in LENGTHS]


def vectors(path: Path, n_threads: int) -> npt.NDArray[np.float32]:
    """[3 poolings * 3 texts, d_model]. The file is named after its family."""
    with edgellm.load(path, threads=n_threads, kv="F16") as model:
        texts = texts_of(path.stem)
        return np.concatenate([model.embed(ids, pooling=p) for p in POOLINGS for ids in texts])


if __name__ == "__main__":
    for name in sys.argv[2:]:
        np.save(Path(sys.argv[1]) / f"{Path(name).stem}.npy", vectors(Path(name), 1))
