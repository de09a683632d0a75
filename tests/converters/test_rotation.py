"""Rotated values are the same model in every family, and what may not be rotated is left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert
from edgellm.converters.adapter import convert_adapter
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.plan import Job, Options
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import Recipe, matrix_rule, preset, vector_rules
from edgellm.converters.rotation import block_length, rotated
from edgellm.converters.sources import open_checkpoint

import tiny_model
from edgellm import edgefile
from edgellm.errors import FormatError
from gguf_format import model
from golden.adapters import write_peft
from golden.families import save_family

torch = pytest.importorskip("torch")

ROTATED_F16 = replace(preset("F16"), rotate_values=True)
IDS = [(13 * i + 5) % 250 for i in range(40)]
# q, k, v in one matrix; head by head and with biases; transposed; two windows and head sizes; MoE.
FAMILIES = (
    *("phi3_longrope", "gpt_neox_parallel", "gpt2_learned_positions", "gemma2_caps_windows"),
    *("llama_biases_yarn", "mixtral_window"),
)


@pytest.mark.parametrize("head_dim", [2, 8, 12, 64, 80])
def test_a_rotation_is_orthogonal_and_its_own_inverse(head_dim: int) -> None:
    matrix = rotated(np.eye(head_dim, dtype=np.float32), head_dim)
    assert np.abs(matrix @ matrix.T - np.eye(head_dim)).max() < 1e-6
    assert np.array_equal(matrix, matrix.T)
    n = block_length(head_dim)
    assert np.abs(np.abs(matrix[:n, :n]) - n**-0.5).max() < 1e-6
    assert not matrix[:n, n:].any()


def weights_of(job: Job) -> Mapping[str, Any]:
    """As planned, every matrix read in two parts that end inside a head."""
    found = {}
    for item in job.planned:
        if item.source is None:
            continue
        n_rows = item.rows_cols[0]
        first = n_rows // 2 + 3 if n_rows > 8 else 0
        parts = [job.read_rows(item, 0, first)] if first else []
        parts.append(job.read_rows(item, first, n_rows - first))
        found[item.name] = torch.from_numpy(np.concatenate(parts).reshape(item.shape))
    return found


def check_same_model(checkpoint_dir: Path, ids: list[int]) -> None:
    from edgellm.converters.reference import Reference

    plain = Reference.from_checkpoint(checkpoint_dir)
    with Checkpoint(checkpoint_dir) as checkpoint:
        job = Job(checkpoint, Options(None, None, None, None, ROTATED_F16))
        weights = weights_of(job)
    changed = {name for name, w in weights.items() if not torch.equal(w, plain.weights[name])}
    roles = {name.split(".")[2] for name in changed}
    assert {"attn_v", "attn_o"} <= roles <= {"attn_v", "attn_v_bias", "attn_o"}
    assert len({name.split(".")[1] for name in changed}) == len(plain.spec.layers)
    folded = Reference(plain.spec, {**plain.weights, **weights}, plain.n_ctx).logits(ids)
    original = plain.logits(ids)
    assert float((folded - original).abs().max()) < 1e-4 * max(1.0, float(original.abs().max()))


def test_the_rotated_model_is_the_original(tiny_checkpoint: Path) -> None:
    check_same_model(tiny_checkpoint, IDS)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rotated_model_is_the_original_in_other_families(family: str, tmp_path: Path) -> None:
    check_same_model(save_family(family, tmp_path / "hf")[0], [i % 60 for i in IDS])


def test_rotated_values_can_be_scaled_and_calibrated(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With eight bits a weight nothing is left but both folds, found from one set of moments."""
    from edgellm.converters.reference import Reference

    monkeypatch.setattr("edgellm.converters.calibrate.scaling.ALPHAS", (0.5,))
    body = matrix_rule("layers.*", "E8_32", None, Method("gptq", n_passes=0), "awq")
    rules = (*vector_rules(), body, matrix_rule("*", "F16", None))
    windows = np.random.default_rng(3).integers(2, 258, (4, 24)).astype(np.int32)
    files = []
    for rotate in (False, True):
        recipe = Recipe("r", rules, rotate_values=rotate)
        out = tmp_path / f"{rotate}.edge"
        stats = tmp_path / "stats"  # what one conversion measured must not serve the other
        tokens = CalibrationTokens(windows)
        convert(tiny_checkpoint, out, recipe=recipe, calibration=tokens, stats_dir=stats)
        files.append(out)
    fresh = tmp_path / "fresh.edge"
    convert(tiny_checkpoint, fresh, recipe=recipe, calibration=CalibrationTokens(windows))
    assert fresh.read_bytes() == files[1].read_bytes()
    original = Reference.from_checkpoint(tiny_checkpoint).logits(IDS)
    for path in files:
        found = Reference.from_edge(path).logits(IDS)
        assert float((found - original).square().mean() / original.square().mean()) < 1e-3


def test_a_file_says_which_layers_are_rotated(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for rotate, layers in ((False, None), (True, [0, 1])):
        out = tmp_path / f"{rotate}.edge"
        convert(tiny_checkpoint, out, recipe=replace(preset("E4_16"), rotate_values=rotate))
        header = edgefile.read_header(out)
        assert header.source is not None
        assert header.source.get("rotated_values") == layers
        stored = json.loads(bytes(edgefile.read_tensor(header, "recipe")))
        assert stored.get("rotate_values", False) is rotate


@pytest.mark.parametrize("kept", ["attn_v", "attn_output"])
def test_matrices_that_keep_the_checkpoints_numbers_are_left_alone(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the two is stored in four bits that L4_32 holds as they are."""
    matrices = {**model.MATRICES, f"blk.0.{kept}": ("Q4_0", 32 if kept == "attn_v" else 64)}
    monkeypatch.setattr(model, "MATRICES", matrices)
    path = tmp_path / "a.gguf"
    path.write_bytes(model.model_bytes())
    rules = (*vector_rules(), matrix_rule("*", "L4_32", None))
    for recipe, n_rotated in ((Recipe("r", rules, rotate_values=True), 0), (ROTATED_F16, 1)):
        with open_checkpoint(path) as checkpoint:
            job = Job(checkpoint, Options(None, None, None, None, recipe))
            assert len(job.rotation.layers) == n_rotated
            said = [text for text in job.warnings if "1 layers are not rotated" in text]
            assert len(said) == 1 - n_rotated
            item = next(item for item in job.planned if item.role == "attn_o")
            stored = checkpoint.read_rows(str(item.source), 0, 64)
            assert np.array_equal(job.read_rows(item, 0, 64), stored) == (n_rotated == 0)


def test_an_adapter_is_rotated_as_its_model_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from edgellm.converters.reference import Reference

    n_kv, n_q = (n * tiny_model.HEAD_DIM for n in (tiny_model.N_KV_HEADS, tiny_model.N_HEADS))
    modules = {
        "model.layers.0.self_attn.v_proj": (n_kv, tiny_model.D_MODEL),
        "model.layers.0.self_attn.o_proj": (tiny_model.D_MODEL, n_q),
        "model.layers.1.self_attn.o_proj": (tiny_model.D_MODEL, n_q),
        "model.layers.1.self_attn.q_proj": (n_q, tiny_model.D_MODEL),
    }
    peft = write_peft(tmp_path / "peft", modules)
    logits = []
    for name, recipe in (("plain", preset("F16")), ("rotated", ROTATED_F16)):
        base, adapter = tmp_path / f"{name}.edge", tmp_path / f"{name}.adapter.edge"
        convert(tiny_checkpoint, base, recipe=recipe)
        convert_adapter(peft, adapter, base=base)
        reference = Reference.from_edge(base)
        logits.append(reference.with_adapter(adapter).logits(IDS))
        assert float((logits[-1] - reference.logits(IDS)).abs().max()) > 0.1
    assert float((logits[1] - logits[0]).abs().max()) < 0.01


def test_a_base_that_says_nonsense_of_its_rotation_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgellm.converters import adapter

    base = tmp_path / "base.edge"
    convert(tiny_checkpoint, base, recipe=ROTATED_F16)
    header = edgefile.read_header(base)
    for bad in ("all", [0, 2], [-1], [0.0], [True], [None]):
        spoilt = replace(header, source={**(header.source or {}), "rotated_values": bad})
        monkeypatch.setattr(adapter, "read_header", lambda _path, spoilt=spoilt: spoilt)
        modules = {"model.layers.0.self_attn.v_proj": (32, tiny_model.D_MODEL)}
        peft = write_peft(tmp_path / "peft", modules)
        with pytest.raises(FormatError, match="rotated_values"):
            convert_adapter(peft, tmp_path / "a.edge", base=base)
