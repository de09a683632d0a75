"""First link of the golden chain: transformers in float32 against converters/reference.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.plan import Job, Options
from edgellm.converters.reference import Reference

from golden.measures import max_abs
from golden.tiny import (
    CASE_NAMES,
    CASES,
    SHARED_MODELS,
    case_ids,
    case_named,
    shared_model,
    tiny_checkpoint,
)


def hf_logits(directory: Path, ids: list[int]) -> Any:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("name", CASE_NAMES)
def test_reference_equals_transformers_on_tiny_models(name: str, tmp_path: Path) -> None:
    case = case_named(name)
    directory = tiny_checkpoint(tmp_path, case)
    ids = case_ids(case)
    wanted = hf_logits(directory, ids)
    got = Reference.from_checkpoint(directory).logits(ids).numpy()
    assert np.abs(wanted).max() > 1, "weights too small for the comparison to mean anything"
    assert max_abs(wanted, got) <= 1e-4


@pytest.mark.parametrize("name", CASE_NAMES)
def test_rotary_frequencies_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    directory = tiny_checkpoint(tmp_path, case_named(name))
    wanted = LlamaRotaryEmbedding(LlamaConfig.from_pretrained(directory)).inv_freq.numpy()
    with Checkpoint(directory) as checkpoint:
        got = Job(checkpoint, Options("F16", None, None, None)).tables["rope_inv_freq"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=2e-7, atol=0)  # one unit in the last place


def test_flat_rope_keys_and_rope_parameters_mean_the_same(tmp_path: Path) -> None:
    case = case_named("gqa_untied_head64_llama3_rope")
    newer = Reference.from_checkpoint(tiny_checkpoint(tmp_path / "newer", case))
    parameters = dict(case["rope_parameters"])
    theta = parameters.pop("rope_theta")
    flat = {key: value for key, value in case.items() if key != "rope_parameters"}
    flat |= {"rope_theta": theta, "rope_scaling": parameters}
    older = Reference.from_checkpoint(tiny_checkpoint(tmp_path / "older", flat))
    frequencies = newer.weights["rope_inv_freq"]
    assert torch.equal(frequencies, older.weights["rope_inv_freq"])
    unscaled = {key: value for key, value in flat.items() if key != "rope_scaling"}
    plain = Reference.from_checkpoint(tiny_checkpoint(tmp_path / "plain", unscaled))
    assert not torch.equal(frequencies, plain.weights["rope_inv_freq"])


@pytest.mark.parametrize("model", SHARED_MODELS)
def test_reference_equals_the_stored_logits_of_real_models(model: str) -> None:
    directory = shared_model(model)
    with np.load(directory / "expected" / "logits64.npz") as expected:
        ids, wanted = expected["input_ids"].tolist(), expected["logits"]
    got = Reference.from_checkpoint(directory).logits(ids).numpy()
    assert max_abs(wanted, got) <= 1e-4


def test_a_tied_model_that_stores_another_head_uses_it_as_transformers_does(
    tmp_path: Path,
) -> None:
    case = CASES[0]
    head = np.random.default_rng(5).standard_normal((case["vocab_size"], case["hidden_size"]))
    directory = tiny_checkpoint(
        tmp_path, case, extra={"lm_head.weight": head.astype(np.float32) / 8}
    )
    ids = case_ids(case)
    reference = Reference.from_checkpoint(directory)
    assert not reference.spec.tied_head
    assert max_abs(hf_logits(directory, ids), reference.logits(ids).numpy()) <= 1e-4


def test_kv_rounding_changes_logits_a_little_and_only_when_asked(tmp_path: Path) -> None:
    case = CASES[0]
    reference = Reference.from_checkpoint(tiny_checkpoint(tmp_path, case))
    ids = case_ids(case)
    exact = reference.logits(ids).numpy()
    rounded = reference.logits(ids, kv="F16").numpy()
    assert 0 < max_abs(exact, rounded) < 0.05


def test_a_spec_in_a_file_gives_the_same_reference_as_the_checkpoint(tmp_path: Path) -> None:
    from edgellm.converters import convert

    case = CASES[2]
    directory = tiny_checkpoint(tmp_path, case, dtype="F16")  # F16 holds these weights exactly
    out = tmp_path / "model.edge"
    convert(directory, out, format="F16")
    ids = case_ids(case)
    from_edge = Reference.from_edge(out)
    from_checkpoint = Reference.from_checkpoint(directory)
    assert from_edge.spec == from_checkpoint.spec
    assert torch.equal(from_edge.logits(ids), from_checkpoint.logits(ids))
    assert json.loads(from_edge.spec.to_json())["n_vocab"] == case["vocab_size"]
