"""Spoiled GGUF files: a typed error or a model, never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters.plan import Job, Options
from edgellm.converters.sources import open_checkpoint

from edgellm import EdgeError
from gguf_format.model import model_bytes

N_MUTATIONS = 300


def use(path: Path) -> None:
    """Everything that a conversion reads of a file, but the encoding."""
    with open_checkpoint(path) as checkpoint:
        job = Job(checkpoint, Options(None, None, None, None))
        for item in job.planned:
            if item.source is None:
                continue
            strips = checkpoint.strips_in(item.format).get(item.source)
            n_rows = item.rows_cols[0]
            if strips is not None:
                strips(checkpoint, 0, n_rows)
            assert job.read_rows(item, 0, n_rows).shape == item.rows_cols
        checkpoint.tokenizer_description()
        checkpoint.optional_text("chat_template.jinja")
        checkpoint.optional_json("tokenizer_config.json")


def spoil(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, replaced, cut out or cut off, mostly in the header."""
    n_header = len(data) - 24_000
    out = bytearray(data)
    kind = rng.random()
    if kind < 0.1:
        return bytes(out[: rng.randrange(len(out))])
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(n_header if rng.random() < 0.95 else len(out))
        if kind < 0.5:
            out[at] ^= 1 << rng.randrange(8)
        elif kind < 0.8:
            out[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), rng.randbytes(8), b"\0\0\0\x80"])
        elif kind < 0.9:
            del out[at : at + rng.randrange(1, 9)]
        else:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(out)


def run_mutations(tmp_path: Path, n: int, seed: int) -> tuple[int, set[str]]:
    """(how many were read all the same, the codes of the others)."""
    data, rng = model_bytes(), random.Random(seed)
    path = tmp_path / "model.gguf"
    n_fine, codes = 0, set()
    for _ in range(n):
        path.write_bytes(spoil(data, rng))
        try:
            with np.errstate(all="ignore"):
                use(path)
            n_fine += 1
        except EdgeError as error:
            codes.add(error.code)
    return n_fine, codes


def test_the_model_itself_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(model_bytes())
    use(path)


def test_spoiled_files_give_typed_errors(tmp_path: Path) -> None:
    n_fine, codes = run_mutations(tmp_path, N_MUTATIONS, seed=1)
    assert 0 < n_fine < N_MUTATIONS
    assert {"gguf_invalid", "header_truncated", "tensor_past_end", "tensor_missing"} <= codes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_spoiled_files(tmp_path: Path) -> None:
    n_fine, codes = run_mutations(tmp_path, 20_000, seed=2)
    assert n_fine > 1000
    assert len(codes) > 12
