"""The model that learns is the reference, for every family, in batches and in packed windows; and
what is learnt is written back as the family stores it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.distill.save import save_checkpoint, stored_tensors
from edgellm.converters.distill.student import PackedModel, checkpoint_weights, random_weights
from edgellm.converters.layout import tensor_slots
from edgellm.converters.plan import Job, Options
from edgellm.converters.reference import Reference, torch_tables

from golden.families import FAMILIES, family_model

N_TOKENS = 40
# One of each kind of block, position and way to store; `make nightly` takes all.
BY_DAY = (
    "gemma2_caps_windows",
    "gpt2_unscaled_relu",
    "qwen2_moe_shared_expert",
    "stablelm_parallel",
)


def saved_family(name: str, directory: Path) -> Path:
    family_model(name).save_pretrained(directory)
    return directory


def packed(job: Job, documents: torch.Tensor) -> PackedModel:
    weights = {**checkpoint_weights(job), **torch_tables(job.tables)}
    return PackedModel(job.spec, weights, documents)


def logits(model: PackedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.head(model.last_hidden(tokens))


@pytest.mark.parametrize(
    "name",
    [name if name in BY_DAY else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_batches_and_packed_documents_are_the_reference_and_weights_go_back(
    name: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    tokens = torch.from_numpy(rng.integers(0, FAMILIES[name]["vocab_size"], (2, N_TOKENS)))
    with Checkpoint(saved_family(name, tmp_path)) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        alone = Reference.from_checkpoint(tmp_path, n_ctx=N_TOKENS)
        wanted = torch.stack([alone.logits(row.tolist()) for row in tokens])
        got = logits(packed(job, torch.zeros_like(tokens)), tokens)
        close = 1e-5 * float(wanted.abs().max())
        assert float((wanted - got).abs().max()) <= close

        # Two documents in a window: the first always, the second where positions are relative.
        cut = 17
        documents = (torch.arange(N_TOKENS) >= cut).long().expand(2, -1)
        both = logits(packed(job, documents), tokens)
        assert float((both[:, :cut] - wanted[:, :cut]).abs().max()) <= close
        if not job.spec.n_positions:
            second = torch.stack([alone.logits(row[cut:].tolist()) for row in tokens])
            # Rotations of other positions round otherwise.
            assert float((both[:, cut:] - second).abs().max()) <= 10 * close
        assert float((both[:, cut:] - wanted[:, cut:]).abs().max()) > 100 * close

        for stored, array in stored_tensors(job, checkpoint_weights(job)).items():
            info = checkpoint.tensors[stored]
            original = checkpoint.file_bytes(info.path, info.offset_bytes, info.n_bytes)
            np.testing.assert_allclose(
                array, original.view("<f4").reshape(info.shape), rtol=0, atol=3e-7
            )


def test_a_saved_model_reads_back_as_the_same_numbers(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with Checkpoint(tiny_checkpoint) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        weights = {name: w * 1.25 for name, w in checkpoint_weights(job).items()}
        save_checkpoint(checkpoint, job, weights, out)
    with Checkpoint(out) as again:
        assert again.tokenizer_description() is not None
        read = checkpoint_weights(Job(again, Options("F16", None, None, None)))
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_random_weights_depend_on_seed_and_name_only(tiny_checkpoint: Path) -> None:
    with Checkpoint(tiny_checkpoint) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        one, two, other = (random_weights(job, seed) for seed in (3, 3, 4))
    assert sorted(one) == sorted(slot.name for slot in tensor_slots(job.spec))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["token_embd"], other["token_embd"])
    assert float(one["token_embd"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(one["layers.0.attn_o"].std()) == pytest.approx(0.01, rel=0.1)
    assert torch.equal(one["output_norm"], torch.ones(job.spec.d_model))


def test_the_families_of_the_day_exist() -> None:
    assert set(BY_DAY) <= set(FAMILIES)
