"""Draft heads that have not learnt, for the tests of what is done with them.

`python draft_heads.py FILE THREADS` prints a digest of what the runtime makes of a file's head.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

N_VOCAB, D_FFN, N_ROWS = 100, 64, 40


def random_head(
    model: Path, head: Path, format: str = "E4_16", seed: int = 1, n_vocab: int = N_VOCAB
) -> None:
    """Writes the file that becomes the blob, for the model in `model`."""
    import torch
    from edgellm.converters.draft_head.file import write_head
    from edgellm.converters.draft_head.shape import head_slots, head_spec
    from edgellm.converters.spec import ModelSpec

    from edgellm.edgefile import read_header

    rng = np.random.default_rng(seed)
    target = ModelSpec.from_json(read_header(model).metadata["edgellm.spec"])
    spec = head_spec(target, n_vocab, D_FFN)
    weights = {
        slot.name: torch.from_numpy(
            rng.standard_normal(slot.shape, dtype=np.float32) * np.float32(0.2)
            + np.float32(slot.role.endswith("_norm"))
        )
        for slot in head_slots(spec)
    }
    ids = np.sort(rng.choice(target.n_vocab, n_vocab, replace=False)).astype(np.int32)
    write_head(head, spec, weights, ids, format, 1)


def with_head(model: Path, out: Path, **how: Any) -> Path:
    """The model's file with a random head in it."""
    from edgellm.converters.draft_head.file import add_blob

    from edgellm.edgefile import verify

    blob = out.with_suffix(".head")
    random_head(model, blob, **how)
    add_blob(verify(model), out, blob, {})
    return out


def inputs(n_vocab: int, d_model: int) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Tokens, and hidden states as a model could have; zeros before the first."""
    rng = np.random.default_rng(7)
    hidden = rng.standard_normal((N_ROWS, d_model), dtype=np.float32)
    hidden[0] = 0
    return rng.integers(n_vocab, size=N_ROWS).tolist(), hidden


def _main(path: str, n_threads: str) -> None:
    from edgellm import _native

    model = _native.Model.load(path, n_threads=int(n_threads))
    tokens, hidden = inputs(model.n_vocab, model.d_model)
    head = _native.DraftHead(model, N_ROWS)
    digest = hashlib.sha256()
    for part in (slice(0, 1), slice(1, 20), slice(20, N_ROWS)):
        logits, following = head.add(tokens[part], hidden[part])
        digest.update(logits.tobytes() + following.tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    _main(*sys.argv[1:])
