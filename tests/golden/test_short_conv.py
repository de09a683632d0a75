"""Layers with a state: whatever is cut, shared, forked, rewound, saved, batched or guessed, LFM2's
short convolutions give the bits of a fresh pass. Equality here is `==`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert

from edgellm import _native
from edgellm.edgefile import read_header
from edgellm.errors import UnsupportedError
from edgellm.options import KV_FORMATS
from edgellm.planner import plan_of
from golden.families import save_family

CHECKPOINT = 512
N_TOKENS = 700
Logits = npt.NDArray[np.float32]


def ids_of(n: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(3, 101, n)]


IDS = ids_of(N_TOKENS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lfm2")
    checkpoint, _ = save_family("lfm2_convolutions", folder / "checkpoint")
    convert(checkpoint, folder / "lfm2.edge", format="E4_16")
    return folder / "lfm2.edge"


@pytest.fixture(scope="module")
def expected(path: Path) -> Logits:
    """[N_TOKENS, n_vocab] of IDS, nothing shared."""
    return logits_by(session_of(load(path)), IDS, 128)


def load(path: Path, **options: object) -> _native.Model:
    return _native.Model.load(str(path), **{"n_threads": 2, "verify": "never", **options})  # type: ignore[arg-type]


def session_of(model: _native.Model, reuse_prefix: bool = False) -> _native.Session:
    return _native.Session(model, 1024, reuse_prefix=reuse_prefix)


def logits_by(session: _native.Session, ids: Sequence[int], chunk: int) -> Logits:
    """Of every token, `chunk` of them appended at a time."""
    parts = []
    for begin in range(0, len(ids), chunk):
        session.append(ids[begin : begin + chunk])
        while session.pending:
            parts.append(session.run_with_logits(1e9))
    return np.concatenate(parts)


def run(session: _native.Session, ids: Sequence[int]) -> Logits:
    session.append(ids)
    while not session.run():
        pass
    return session.logits()


@pytest.mark.parametrize(("chunk", "n_threads"), [(1, 2), (7, 1), (64, 2), (512, 1)])
def test_no_cut_of_a_text_and_no_number_of_threads_changes_a_bit(
    path: Path, expected: Logits, chunk: int, n_threads: int
) -> None:
    session = session_of(load(path, n_threads=n_threads))
    assert np.array_equal(logits_by(session, IDS, chunk), expected)


ISA_CODE = """
import sys
import numpy as np
from golden.test_short_conv import IDS, load, logits_by, session_of
np.save(sys.argv[2], logits_by(session_of(load(sys.argv[1])), IDS[:200], 50))
"""


@pytest.mark.parametrize("isa", [isa for isa in _native.isa_levels() if isa != "scalar"])
def test_every_instruction_set_gives_the_bits_of_the_others(
    path: Path, expected: Logits, tmp_path: Path, isa: str
) -> None:
    """And scalar code: test_families.py compares that with this machine's best."""
    subprocess.run(
        [sys.executable, "-c", ISA_CODE, str(path), str(tmp_path / "logits.npy")],
        env=os.environ | {"EDGELLM_ISA": isa, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
    )
    assert np.array_equal(np.load(tmp_path / "logits.npy"), expected[:200])


def test_rewinds_near_and_far_and_forks_go_on_with_the_same_bits(
    path: Path, expected: Logits
) -> None:
    session = session_of(load(path))
    run(session, IDS)
    for n_kept, n_again in ((690, 0), (572, 0), (300, 300), (1, 1), (0, 0)):
        session.rewind(n_kept)
        assert session.n_recompute == n_again
        other = session.fork()
        for one in (session, other):
            assert np.array_equal(run(one, IDS[n_kept:]), expected[-1])


def test_known_texts_are_reused_up_to_a_checkpoint_or_their_end(
    path: Path, expected: Logits
) -> None:
    model = load(path)
    first = session_of(model, reuse_prefix=True)
    run(first, IDS)
    for n_common, n_reused in ((600, CHECKPOINT), (490, 0), (699, CHECKPOINT)):
        session = session_of(model, reuse_prefix=True)
        assert np.array_equal(run(session, IDS[:n_common]), expected[n_common - 1])
        assert session.stats["n_reused_tokens"] == n_reused
        ids = [*IDS[:n_common], *ids_of(40, seed=n_common)]
        alone = session_of(model)
        assert np.array_equal(run(session, ids[n_common:]), run(alone, ids))
        session.close()
    first.close()  # where it ended, all of it is known
    session = session_of(model, reuse_prefix=True)
    ids = [*IDS, *ids_of(30, seed=1)]
    wanted = run(session_of(model), ids)
    assert np.array_equal(run(session, ids), wanted)
    assert session.stats["n_reused_tokens"] == N_TOKENS


def test_a_turn_ends_at_a_checkpoint(path: Path) -> None:
    model = load(path)
    chat = session_of(model, reuse_prefix=True)
    run(chat, IDS[:100])
    for token in IDS[100:131]:
        run(chat, [token])
    run(chat, IDS[131:200])  # the next turn
    other = session_of(model, reuse_prefix=True)
    ids = [*IDS[:131], *ids_of(30, seed=2)]
    assert np.array_equal(run(other, ids), run(session_of(model), ids))
    assert other.stats["n_reused_tokens"] == 131


def test_saved_sessions_and_pages_on_disk_go_on_with_the_same_bits(
    path: Path, expected: Logits, tmp_path: Path
) -> None:
    model = load(path)
    session = session_of(model)
    run(session, IDS[:333])
    session.save(tmp_path / "saved")
    restored = session_of(load(path))
    restored.restore(_native.SessionFile.open(str(tmp_path / "saved")))
    assert np.array_equal(logits_by(restored, IDS[333:], 50), expected[333:])

    directory = tmp_path / "kv"
    with_disk = load(path, verify="always", kv_cache_dir=str(directory))
    run(session_of(with_disk, reuse_prefix=True), IDS)
    with_disk.close()
    again = load(path, verify="always", kv_cache_dir=str(directory))
    session = session_of(again, reuse_prefix=True)
    assert np.array_equal(run(session, IDS), expected[-1])
    assert session.stats["n_disk_tokens"] == CHECKPOINT


def test_trimmed_memory_comes_back_with_the_same_bits(path: Path, expected: Logits) -> None:
    session = session_of(load(path), reuse_prefix=True)
    run(session, IDS[:690])
    assert session.trim() > 0
    assert session.n_recompute > 0
    assert np.array_equal(run(session, IDS[690:]), expected[-1])


def test_a_sequence_among_others_has_the_bits_of_one_alone(path: Path, expected: Logits) -> None:
    model = load(path)
    sessions = [session_of(model) for _ in range(5)]
    for i, session in enumerate(sessions):
        run(session, IDS[: 40 + 7 * i])
    for step in range(30):
        for i, session in enumerate(sessions):
            session.append([IDS[40 + 7 * i + step]])
        while any(session.pending for session in sessions):
            for _, _, error in _native.run_batch(sessions):
                assert error is None
        for i, session in enumerate(sessions):
            assert np.array_equal(session.logits(), expected[40 + 7 * i + step])


def test_guessing_ahead_changes_no_logits(path: Path) -> None:
    """Trees of drafts: a state is of the tokens above, not of those that stand before."""
    prompt = IDS[:20] * 6
    plain = session_of(load(path))
    drafting = session_of(load(path, speculate="always"), reuse_prefix=True)
    wanted, got = run(plain, prompt), run(drafting, prompt)
    for _ in range(200):
        assert np.array_equal(wanted, got)
        token = int(np.argmax(wanted))
        wanted, got = run(plain, [token]), run(drafting, [token])
    drafters = drafting.stats["drafters"].values()
    assert sum(n_drafted for n_drafted, _ in drafters) > 0
    assert sum(n_accepted for _, n_accepted in drafters) > 0


def test_memory_is_planned_as_it_is_taken(path: Path) -> None:
    header = read_header(path)
    for kv in KV_FORMATS:
        plan, model = plan_of(header, 1 << 30, kv), load(path, kv_format=kv)
        assert plan.scratch_bytes == model.scratch_bytes
        groups = [(group.window, group.bytes_per_token) for group in plan.kv_groups]
        assert groups == [group[:2] for group in model.kv_groups]
        assert groups[1] == (4, 3 * 60 * 4)
        for n_ctx in (1, 16, 17, 130, 191, 192, 193, 1000):
            assert plan.kv_bytes_at(n_ctx) == model.kv_bytes(n_ctx)


def test_shifting_keeps_the_state_and_compressing_is_refused(path: Path) -> None:
    session = session_of(load(path))
    run(session, IDS[:300])
    with pytest.raises(UnsupportedError, match="short convolutions"):
        session.compress(100)
    assert np.array_equal(run(session, IDS[300:310]), run(session_of(load(path)), IDS[:310]))
    session.shift(32, 128)
    assert np.isfinite(run(session, IDS[310:340])).all()
    assert session.n_dropped == 128
