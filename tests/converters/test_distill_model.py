"""Weights of models that learn: where they begin, and how they are written back. That the forward
pass is the reference, for every family, is in tests/golden/test_families.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.distill.save import save_checkpoint
from edgellm.converters.distill.student import checkpoint_weights, random_weights
from edgellm.converters.layout import tensor_slots
from edgellm.converters.plan import Job, Options


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
