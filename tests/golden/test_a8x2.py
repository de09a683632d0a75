"""Activations as two int8 rows (act a8x2): the same bits everywhere, and what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert
from edgellm.converters.recipe import Recipe, matrix_rule, vector_rules
from safetensors.numpy import load_file, save_file

import edgellm
from edgellm import _native, planner
from edgellm.edgefile import read_header
from golden.measures import nmse
from golden.test_same_bits import MAX_TOKENS, logits_in_pieces, logits_in_process
from golden.tiny import CASE_NAMES, case_ids, case_named, tiny_checkpoint

CASE = case_named(CASE_NAMES[0])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose norms make every 32nd channel 30 times as large as the others."""
    directory = tiny_checkpoint(tmp_path_factory.mktemp("a8x2"), CASE)
    weights = load_file(directory / "model.safetensors")
    for name, value in weights.items():
        if "layernorm" in name:
            weights[name] = value * np.where(np.arange(value.size) % 32 == 5, 30, 1).astype(
                value.dtype
            )
    save_file(weights, directory / "model.safetensors")
    return directory


def logits(path: Path) -> npt.NDArray[np.float32]:
    with edgellm.load(path, kv="F16", verify="never") as model:
        return model.logits(case_ids(CASE))


def test_the_bits_are_the_same_for_every_level_thread_count_and_split(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.edge"
    convert(checkpoint, path, format="E4_16", act="a8x2")
    wanted = logits_in_process(path, tmp_path / "scalar.npy", "scalar", 1)
    assert np.isfinite(wanted).all()
    for isa in _native.isa_levels():
        got = logits_in_process(path, tmp_path / f"{isa}.npy", isa, 2)
        assert np.array_equal(wanted, got), isa
    for piece_tokens in (1, 7, 9, MAX_TOKENS):
        assert np.array_equal(wanted, logits_in_pieces(path, piece_tokens)), piece_tokens


def test_beside_outliers_logits_are_fifty_times_closer_than_with_a8(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Attention and norms run in float32 on both sides, so all of the error is of activations."""
    found = {}
    for act in ("f32", "a8", "a8x2"):
        convert(checkpoint, tmp_path / act, format="E8_32", act=act)
        found[act] = logits(tmp_path / act)
    errors = {act: nmse(found["f32"], found[act]) ** 0.5 for act in ("a8", "a8x2")}
    print(f"RMS error of logits: {errors}")
    assert errors["a8x2"] * 50 <= errors["a8"]


def test_one_tensor_alone_may_have_it_and_the_plan_counts_both_forms(
    checkpoint: Path, tmp_path: Path
) -> None:
    """q, k and v share their input: one op fills both forms of it."""
    rules = (
        *vector_rules(),
        matrix_rule("attn_q", "E8_32", "a8x2"),
        matrix_rule("*", "E8_32", None),
    )
    convert(checkpoint, tmp_path / "mixed", recipe=Recipe("mixed", rules))
    acts = {t.role: t.act for t in read_header(tmp_path / "mixed").tensors.values() if t.act}
    assert acts["attn_q"] == "a8x2"
    assert acts["attn_k"] == acts["ffn_up"] == "a8"

    found = {}
    for name, act in (("a8", "a8"), ("a8x2", "a8x2")):
        convert(checkpoint, tmp_path / name, format="E8_32", act=act)
        found[name] = logits(tmp_path / name)
    mixed = logits(tmp_path / "mixed")
    assert not np.array_equal(mixed, found["a8"])
    assert not np.array_equal(mixed, found["a8x2"])
    for name in ("a8", "a8x2", "mixed"):
        native = _native.Model.load(str(tmp_path / name))
        plan = planner.plan_of(read_header(tmp_path / name), 1 << 30)
        assert plan.scratch_bytes == native.scratch_bytes
        native.close()
