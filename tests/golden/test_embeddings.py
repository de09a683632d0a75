"""Hidden states and what is pooled of them: transformers against converters/reference.py, and that
against the runtime, whose bits depend on nothing but text and model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert
from edgellm.converters.reference import Reference

import edgellm
from edgellm import _native
from edgellm.doctor_model import check_model
from edgellm.embedding import POOLINGS
from golden.families import family_ids, family_model, save_family
from golden.measures import max_abs, nmse
from golden.vectors import LENGTHS, texts_of, vectors

# Llama's blocks, a tied head with norms of heads, windows with two rotary tables, LayerNorm.
FAMILIES = ("llama_biases_yarn", "qwen3_head_norms", "gemma3_two_bases", "gpt2_learned_positions")
Hidden = npt.NDArray[np.float32]


def pooled(hidden: npt.NDArray[np.floating], pooling: str) -> npt.NDArray[np.float64]:
    """Of length 1."""
    rows = hidden.astype(np.float64)
    vector = {"mean": rows.mean(axis=0), "last": rows[-1], "cls": rows[0]}[pooling]
    return vector / np.linalg.norm(vector)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's checkpoint, made once."""
    made: dict[str, Path] = {}

    def save(name: str) -> Path:
        if name not in made:
            made[name] = save_family(name, tmp_path_factory.mktemp(name))[0]
        return made[name]

    return save


@pytest.fixture(scope="module")
def edge_files(
    saved: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Every family in E4_16 with float32 activations."""
    folder = tmp_path_factory.mktemp("edge")
    for name in FAMILIES:
        convert(saved(name), folder / f"{name}.edge", format="E4_16", act="f32")
    return [folder / f"{name}.edge" for name in FAMILIES]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_equals_transformers_on_a_padded_batch(
    name: str, saved: Callable[[str], Path]
) -> None:
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(saved(name), dtype=torch.float32).eval()
    texts, n_most = texts_of(name), max(LENGTHS)
    ids = torch.tensor([text + [0] * (n_most - len(text)) for text in texts])
    mask = torch.tensor([[1] * n + [0] * (n_most - n) for n in LENGTHS])
    with torch.inference_mode():
        wanted = model(ids, attention_mask=mask, use_cache=False).last_hidden_state.numpy()
    reference = Reference.from_checkpoint(saved(name), n_ctx=n_most)
    for row, text in zip(wanted, texts, strict=True):
        got = reference.hidden(text).numpy()
        states = row[: len(text)]
        assert max_abs(states, got) <= 1e-4 * np.abs(states).max()
        for pooling in POOLINGS:
            assert max_abs(pooled(states, pooling), pooled(got, pooling)) <= 1e-4


def test_native_vectors_equal_those_of_the_reference(edge_files: list[Path]) -> None:
    for path in edge_files:
        reference = Reference.from_edge(path, n_ctx=max(LENGTHS))
        states = [reference.hidden(text, kv="F16").numpy() for text in texts_of(path.stem)]
        with edgellm.load(path, threads=2, kv="F16", n_ctx=max(LENGTHS)) as model:
            for text, hidden in zip(texts_of(path.stem), states, strict=True):
                got = model.embed(text, pooling="mean", normalize=False)[0]
                assert nmse(hidden.mean(axis=0), got) <= 1e-6
                for pooling in POOLINGS:
                    got = model.embed(text, pooling=pooling)[0]
                    assert nmse(pooled(hidden, pooling), got) <= 1e-6


def test_vectors_have_the_same_bits_for_any_code_threads_and_cut(
    edge_files: list[Path], tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, "-m", "golden.vectors", str(tmp_path), *map(str, edge_files)],
        env=os.environ | {"EDGELLM_ISA": "scalar", "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
    )
    for path in edge_files:
        wanted = np.load(tmp_path / f"{path.stem}.npy")
        for n_threads in (1, 2):
            assert np.array_equal(wanted, vectors(path, n_threads)), (path.stem, n_threads)
        ids = family_ids(path.stem)
        whole = hidden_states(path, [ids])
        assert np.array_equal(whole, hidden_states(path, [[token] for token in ids]))
        assert np.array_equal(whole, hidden_states(path, [ids[:50], ids[50:]]))


def hidden_states(path: Path, pieces: list[list[int]]) -> Hidden:
    """[n_tokens, d_model] of a text that comes in pieces."""
    model = _native.Model.load(str(path), n_threads=1, verify="never", kv_format="F16")
    session = _native.Session(model, sum(map(len, pieces)))
    parts = []
    for piece in pieces:
        session.append(piece)
        while session.pending:
            parts.append(session.run_with_hidden(0))
    return np.concatenate(parts)


@pytest.mark.parametrize("name", ["qwen3_head_norms", "llama_biases_yarn"])
def test_a_checkpoint_without_its_head_converts(name: str, tmp_path: Path) -> None:
    """As AutoModel saves it: another class, no prefix before the names. Qwen's head is tied."""
    import torch

    bare = family_model(name).model
    bare.save_pretrained(tmp_path / "bare")
    ids = family_ids(name)
    with torch.inference_mode():
        wanted = bare(torch.tensor([ids]), use_cache=False).last_hidden_state[0].numpy()
    reference = Reference.from_checkpoint(tmp_path / "bare")
    assert max_abs(wanted, reference.hidden(ids).numpy()) <= 1e-4 * np.abs(wanted).max()
    report = convert(tmp_path / "bare", tmp_path / "bare.edge", format="E8_32")
    checks = {check.name: check for check in check_model(str(tmp_path / "bare.edge"))}
    assert checks["smoke run"].verdict == "ok"
    with edgellm.load(tmp_path / "bare.edge", kv="F16") as model:
        assert nmse(pooled(wanted, "last"), model.embed(ids)[0]) <= 1e-2
        if reference.spec.tied_head:
            assert len(model.generate(ids, max_tokens=1).token_ids) == 1
            return
        assert any("embeddings, no text" in warning for warning in report.warnings)
        with pytest.raises(edgellm.UnsupportedError, match="without its head"):
            model.generate(ids, max_tokens=1)
        with pytest.raises(edgellm.UnsupportedError, match="no head"):
            reference.logits(ids)
