"""Third link of the golden chain: the same bits for every instruction set, number of threads, split
of the prompt and rewind. Equality here is `==`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert
from edgellm.converters.recipe import preset

from edgellm import _native
from edgellm.options import KV_FORMATS
from golden.tiny import CASE_NAMES, case_named, tiny_checkpoint

FORMATS = ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32", "K4_32", "L8_32", "F16")
CHANGED = "E4_16 with keys balanced and rotated"
MAX_TOKENS = 300  # past a chunk of 128 rows and, where the context allows, a segment of 256
LOGITS_CODE = """
import sys
import numpy as np
from edgellm import _native
out, n_threads, max_tokens, paths = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
def logits(kv_and_path):
    kv, path = kv_and_path.split("=", 1)
    model = _native.Model.load(path, n_threads=n_threads, verify="never", kv_format=kv)
    n_tokens = min(max_tokens, model.n_ctx_train)
    session = _native.Session(model, n_tokens)
    session.append([(7919 * t + 13) % model.n_vocab for t in range(n_tokens)])
    parts = []
    while session.pending:
        parts.append(session.run_with_logits(1e9))
    return np.concatenate(parts)
np.savez(out, *map(logits, paths))
"""

Logits = npt.NDArray[np.float32]
MakeEdge = Callable[[str], Path]


@pytest.fixture(scope="module", params=CASE_NAMES)
def make_edge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeEdge:
    """Converts a tiny model once per format, with the activations that format has by default."""
    folder = tmp_path_factory.mktemp("same_bits")
    checkpoint = tiny_checkpoint(folder, case_named(request.param))

    def make(format: str) -> Path:
        out = folder / f"{format}.edge"
        if not out.exists():
            changed = format == CHANGED
            recipe = replace(preset(format.split()[0]), rotate_keys=changed, balance_keys=changed)
            text = np.arange(60, dtype=np.int32).reshape(2, 30) % 40
            convert(checkpoint, out, recipe=recipe, held_out=text if changed else None)
        return out

    return make


def logits_of_each(
    paths: Sequence[Path], out: Path, isa: str, n_threads: int, kvs: Sequence[str] = ()
) -> list[Logits]:
    """In one process, since an instruction set is chosen once a process. F16 KV by default."""
    of_kv = [f"{kv}={path}" for kv, path in zip(kvs or ["F16"] * len(paths), paths, strict=True)]
    command = [sys.executable, "-c", LOGITS_CODE, str(out), str(n_threads), str(MAX_TOKENS)]
    env = os.environ | {"EDGELLM_ISA": isa}
    subprocess.run([*command, *of_kv], env=env, check=True)
    with np.load(out) as found:
        return [found[f"arr_{index}"] for index in range(len(paths))]


def logits_in_process(path: Path, out: Path, isa: str, n_threads: int) -> Logits:
    return logits_of_each([path], out.with_suffix(".npz"), isa, n_threads)[0]


def prompt(model: _native.Model) -> list[int]:
    n_tokens = min(MAX_TOKENS, model.n_ctx_train)
    return [(7919 * t + 13) % model.n_vocab for t in range(n_tokens)]


def logits_in_pieces(path: Path, piece_tokens: int, kv: str = "F16") -> Logits:
    model = _native.Model.load(str(path), n_threads=2, verify="never", kv_format=kv)
    ids = prompt(model)
    session = _native.Session(model, len(ids))
    parts = []
    for start in range(0, len(ids), piece_tokens):
        session.append(ids[start : start + piece_tokens])
        while session.pending:
            parts.append(session.run_with_logits(1e9))
    return np.concatenate(parts)


def test_every_instruction_set_and_thread_count_gives_the_same_bits(
    make_edge: MakeEdge, tmp_path: Path
) -> None:
    kvs = [kv for kv, _ in zip(cycle(KV_FORMATS), FORMATS, strict=False)]  # neither sees the other
    kvs.append("K6V4")
    formats = [*FORMATS, CHANGED]
    paths = [make_edge(format) for format in formats]
    names = [f"{format} with {kv}" for format, kv in zip(formats, kvs, strict=True)]
    wanted = logits_of_each(paths, tmp_path / "scalar.npz", "scalar", 1, kvs)
    assert all(np.isfinite(logits).all() for logits in wanted)
    for isa in _native.isa_levels():
        for n_threads in (1, 2) if isa != "scalar" else (2,):
            found = logits_of_each(paths, tmp_path / f"{isa}{n_threads}.npz", isa, n_threads, kvs)
            same = map(np.array_equal, wanted, found)
            assert dict(zip(names, same, strict=True)) == dict.fromkeys(names, True), (
                f"{isa}, {n_threads} threads"
            )


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_the_split_of_a_prompt_does_not_change_a_bit(kv: str, make_edge: MakeEdge) -> None:
    path = make_edge("F16" if kv == "F16" else "E4_16")
    whole = logits_in_pieces(path, MAX_TOKENS, kv)
    for piece_tokens in (1, 3, 7, 64):
        assert np.array_equal(whole, logits_in_pieces(path, piece_tokens, kv)), piece_tokens


@pytest.mark.parametrize("kv", KV_FORMATS)
def test_rewind_and_replay_gives_the_same_bits(kv: str, make_edge: MakeEdge) -> None:
    path = str(make_edge("E4_16"))
    model = _native.Model.load(path, n_threads=2, verify="never", kv_format=kv)
    ids = prompt(model)
    session = _native.Session(model, len(ids))

    def last_logits(tokens: list[int]) -> Logits:
        session.append(tokens)
        while not session.run():
            pass
        return session.logits()

    straight = last_logits(ids)
    for keep in (0, 1, 31, 32, 33, 100, len(ids) - 1):
        session.rewind(keep)
        last_logits([(id_ + 1) % model.n_vocab for id_ in ids[keep:]])  # another continuation
        session.rewind(keep)
        assert np.array_equal(straight, last_logits(ids[keep:])), keep
