"""Calibration and folded scales in families whose blocks are not Llama's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters import convert
from edgellm.converters.calibrate import CalibrationTokens
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.fold import consumers
from edgellm.converters.layout import KEY_BALANCE_ROLES
from edgellm.converters.plan import Job, Options
from edgellm.converters.recipe import (
    CalibrationOptions,
    Recipe,
    matrix_rule,
    preset,
    vector_rules,
)
from edgellm.converters.reference import Reference, torch_tables

from edgellm.edgefile import read_header
from edgellm.errors import InvalidArgumentError
from golden.families import family_ids, save_family
from golden.measures import max_abs


def windows(name: str) -> np.ndarray:
    """[4, 22]"""
    return np.array(family_ids(name), dtype=np.int32).reshape(4, -1)


# Biases, LayerNorms, norms after sublayers, ungated and side by side, fused tensors, experts.
FOLDED = (
    "llama_biases_yarn",
    "gemma2_caps_windows",
    "phi3_longrope",
    "granite_multipliers",
    "olmo2_post_norms",
    "stablelm_parallel",
    "gpt_neox_parallel",
    "gpt2_learned_positions",
    "qwen2_moe_shared_expert",
    "lfm2_convolutions",
)


@pytest.mark.parametrize("name", FOLDED)
def test_folded_scales_change_nothing(name: str, tmp_path: Path) -> None:
    """Random factors wherever a layer has an operator that can take them."""
    directory, wanted = save_family(name, tmp_path / name)
    rng = np.random.default_rng(7)
    with Checkpoint(directory) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        n_folded = 0
        for index, layer in enumerate(job.spec.layers):
            for role in consumers(layer):
                producer = f"layers.{index}.{role}"
                job.folds.set(producer, rng.uniform(0.5, 2, job.folds.width(producer)))
                n_folded += 1
        weights = {
            item.name: torch.from_numpy(
                np.ascontiguousarray(job.read_rows(item, 0, item.rows_cols[0])).reshape(item.shape)
            )
            for item in job.planned
            if item.source is not None
        }
    # The value matrix, whatever the family, or a norm before a short convolution.
    assert n_folded >= len(job.spec.layers)
    model = Reference(job.spec, {**weights, **torch_tables(job.tables)}, n_ctx=len(wanted))
    assert max_abs(wanted, model.logits(family_ids(name)).numpy()) <= 3e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(
    "name", ["qwen2_moe_shared_expert", "gpt2_learned_positions", "lfm2_convolutions"]
)
def test_gptq_sees_what_experts_and_positions_give(name: str, tmp_path: Path) -> None:
    """Nearer than rounding on the calibration text itself, by the logits' divergence."""
    directory, _ = save_family(name, tmp_path / name)
    kl = {}
    for method in ("rtn", "gptq"):
        calibration = CalibrationTokens(windows(name)) if method == "gptq" else ()
        report = convert(
            directory,
            tmp_path / f"{method}.edge",
            format="E3_32",
            calibration=calibration,
            held_out=windows(name),
        )
        assert report.divergence is not None
        kl[method] = report.divergence.kl
    assert 0 < kl["gptq"] < kl["rtn"]


def test_scales_are_refused_where_nothing_can_take_them(tmp_path: Path) -> None:
    directory, _ = save_family("olmo2_post_norms", tmp_path / "olmo2")
    rule = matrix_rule("attn_q", "E4_16", None, None, "awq")
    rules = (*vector_rules(), rule, matrix_rule("*", "E4_16", None))
    recipe = Recipe("scaled", rules, CalibrationOptions(4, 22))
    with pytest.raises(InvalidArgumentError, match=r"nothing before 'layers\.0\.attn_q'"):
        convert(
            directory,
            tmp_path / "x.edge",
            recipe=recipe,
            calibration=CalibrationTokens(windows("olmo2_post_norms")),
        )


def test_where_scores_are_bounded_keys_keep_their_constant(tmp_path: Path) -> None:
    """A bound sees what softmax does not."""
    name = "gemma2_caps_windows"
    source, _ = save_family(name, tmp_path / "source")
    recipe = replace(preset("E8_32"), balance_keys=True)
    report = convert(source, tmp_path / "a.edge", recipe=recipe, held_out=windows(name))
    assert report.quality is not None
    assert all(found.kl_balanced_keys == found.kl for found in report.quality.kv.formats)
    header = read_header(tmp_path / "a.edge")
    assert not {info.role for info in header.tensors.values()} & set(KEY_BALANCE_ROLES)
    assert "balance_keys" not in header.metadata["edgellm.spec"]
