"""Every block of the model spec: the native runtime equals the oracle on the same weights, and has
the same bits for every instruction set, number of threads and split of the tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters.reference import Reference

import edgellm
from edgellm import InvalidArgumentError, _native
from golden.blocks import CASES, ids_of, write_case
from golden.measures import nmse

Logits = npt.NDArray[np.float32]
N_DECODED = 64
# argv: JSON of [file, ids, out]s; all tokens at once, one thread, the instruction set of the
# environment.
LOGITS_CODE = """
import json, sys
import numpy as np
import edgellm
from edgellm import InvalidArgumentError, _native
for path, ids, out in json.loads(sys.argv[1]):
    session = _native.Session(_native.Model.load(path, n_threads=1, verify="never"))
    session.append(ids)
    parts = []
    while session.pending:
        parts.append(session.run_with_logits(1e9))
    np.save(out, np.concatenate(parts))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks")


def edge_file(folder: Path, name: str, format: str) -> Path:
    path = folder / f"{name}-{format}.edge"
    return path if path.exists() else write_case(name, format, folder)


def logits_in_steps(path: Path, ids: list[int], n_ctx: int = 0) -> Logits:
    """A prompt, then 64 tokens one by one, on two threads."""
    model = _native.Model.load(str(path), n_threads=2, verify="never", n_ctx=n_ctx)
    session = _native.Session(model, len(ids))
    parts = []
    for piece in (ids[:-N_DECODED], *([i] for i in ids[-N_DECODED:])):
        session.append(piece)
        while session.pending:
            parts.append(session.run_with_logits(1e9))
    return np.concatenate(parts)


@pytest.mark.parametrize("name", CASES)
def test_native_equals_the_reference_for_prefill_and_64_decode_steps(
    name: str, folder: Path
) -> None:
    path, ids = edge_file(folder, name, "F16"), ids_of(name)
    wanted = Reference.from_edge(path).logits(ids, kv_f16=True).numpy()
    assert nmse(wanted, logits_in_steps(path, ids)) <= 1e-6


def test_scalar_in_one_piece_has_the_bits_of_the_best_kernels_in_steps(folder: Path) -> None:
    jobs = [
        (str(edge_file(folder, name, format)), ids_of(name), str(folder / f"{name}-{format}.npy"))
        for name in CASES
        for format in ("F16", "E8_32")
    ]
    subprocess.run(
        [sys.executable, "-c", LOGITS_CODE, json.dumps(jobs)],
        env=os.environ | {"EDGELLM_ISA": "scalar"},
        check=True,
    )
    different = [
        path
        for path, ids, out in jobs
        if not np.array_equal(np.load(out), logits_in_steps(Path(path), ids))
    ]
    assert not different


def test_the_planned_context_chooses_the_rotary_table_for_good(folder: Path) -> None:
    path, ids = edge_file(folder, "two_contexts", "F16"), ids_of("two_contexts")
    short = Reference.from_edge(path, n_ctx=64).logits(ids[:64], kv_f16=True).numpy()
    long = Reference.from_edge(path, n_ctx=65).logits(ids[:64], kv_f16=True).numpy()
    assert nmse(short, long) > 1e-3
    assert nmse(short, logits_in_steps(path, ids[:64], n_ctx=64)) <= 1e-6
    assert nmse(long, logits_in_steps(path, ids[:64], n_ctx=65)) <= 1e-6
    assert nmse(long, logits_in_steps(path, ids[:64])) <= 1e-6
    with edgellm.load(path, verify="never", n_ctx=64) as model:
        assert nmse(short, model.logits(ids[:64])) <= 1e-6
        with pytest.raises(InvalidArgumentError, match="load the model with a larger one"):
            model.logits(ids[:65])
