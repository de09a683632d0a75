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
from edgellm.edgefile import read_header
from edgellm.lease import SessionLease
from edgellm.options import KV_FORMATS
from edgellm.planner import KvGroup, plan_of
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
from edgellm.edgefile import read_header
from edgellm.planner import KvGroup, plan_of
from edgellm.lease import SessionLease
for path, ids, out in json.loads(sys.argv[1]):
    model = _native.Model.load(path, n_threads=1, verify="never", kv_format="F16")
    session = _native.Session(model)
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
    model = _native.Model.load(str(path), n_threads=2, verify="never", n_ctx=n_ctx, kv_format="F16")
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
    wanted = Reference.from_edge(path).logits(ids, kv="F16").numpy()
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
    short = Reference.from_edge(path, n_ctx=64).logits(ids[:64], kv="F16").numpy()
    long = Reference.from_edge(path, n_ctx=65).logits(ids[:64], kv="F16").numpy()
    assert nmse(short, long) > 1e-3
    assert nmse(short, logits_in_steps(path, ids[:64], n_ctx=64)) <= 1e-6
    assert nmse(long, logits_in_steps(path, ids[:64], n_ctx=65)) <= 1e-6
    assert nmse(long, logits_in_steps(path, ids[:64])) <= 1e-6
    with edgellm.load(path, kv="F16", verify="never", n_ctx=64) as model:
        assert nmse(short, model.logits(ids[:64])) <= 1e-6
        with pytest.raises(InvalidArgumentError, match="load the model with a larger one"):
            model.logits(ids[:65])


def test_windows_bound_the_memory_and_any_rewind_has_the_same_bits(folder: Path) -> None:
    path, ids = edge_file(folder, "layers_without_rope", "F16"), ids_of("layers_without_rope")
    wanted = logits_in_steps(path, ids)
    model = _native.Model.load(str(path), n_threads=2, verify="never", kv_format="F16")
    plan = plan_of(read_header(path), limit_bytes=0, kv="F16")
    assert plan.kv_groups == (KvGroup(0, 2 * 2 * 2 * 12 * 2), KvGroup(3, 2 * 2 * 12 * 2))
    for kv in KV_FORMATS:
        other = _native.Model.load(str(path), n_threads=2, verify="never", kv_format=kv)
        other_plan = plan_of(read_header(path), limit_bytes=0, kv=kv)
        for n_ctx in (1, 17, 33, 130, 192, 193, len(ids), 400):
            assert other_plan.kv_bytes_at(n_ctx) == other.kv_bytes(n_ctx)
    session = _native.Session(model, len(ids), reuse_prefix=False)
    session.append(ids)
    while not session.run():
        pass
    assert session.stats["kv_bytes"] <= model.kv_bytes(len(ids)) < len(ids) * 288
    n_again = 0
    for n_kept in (290, 162, 20, 0, 5):
        session.rewind(n_kept)
        assert (session.n_tokens, session.pending) == (n_kept, 0)
        n_again += session.n_recompute
        session.append(ids[n_kept:])
        parts = []
        while session.pending:
            parts.append(session.run_with_logits(0))
        assert np.array_equal(np.concatenate(parts), wanted[n_kept:])
    assert session.stats["n_recomputed_tokens"] == n_again == 20 + 5
    lease = SessionLease(session, ended=lambda stream: None)
    lease.begin([*ids[:280], 3])
    assert lease.n_held == 280
    lease.begin([*ids[:10], 3])
    assert lease.n_held == 0
