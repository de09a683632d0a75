"""Models that learn: a forward pass over packed windows, and what of it an optimizer moves.

The forward pass is reference.py's. Here documents of a window do not see each other, and matrices
may be fake-quantized (refined.py). Knows no losses and no files but checkpoints.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from ..divergence import original_weights
from ..plan import Job
from ..recipe import EMBED_ROLE, FAITHFUL_ROLES
from ..reference import Reference, torch_tables
from ..report import PlannedTensor
from ..spec import LayerSpec, ModelSpec
from .optimizer import Learnt
from .recipe import OptimizerOptions

INIT_STD = 0.02


class PackedModel(Reference):
    """A forward pass over windows [b, n] of several documents each, which do not see each other.
    Where positions are learnt, they count from the window's begin."""

    def __init__(self, spec: ModelSpec, weights: dict[str, Tensor], documents: Tensor) -> None:
        super().__init__(spec, weights, n_ctx=documents.shape[1])
        self._same = documents[:, None, :, None] == documents[:, None, None, :]

    def last_hidden(self, tokens: Tensor) -> Tensor:
        """Hidden states after the last layer [b, n, d_model]."""
        x = self.embedded(embedding(tokens, self.weights[EMBED_ROLE]))
        for index in range(len(self.spec.layers)):
            x = self.block(x, index)
        return x

    def _seen(self, h: Tensor, layer: LayerSpec) -> Tensor:
        return super()._seen(h, layer) & self._same

    def _earlier(self, x: Tensor, n: int) -> Tensor:
        # [b, n_tokens, 1]: whether it is the same document there.
        same = self._same[:, 0].diagonal(-n, 1, 2)[..., None]
        return super()._earlier(x, n) * pad(same, (0, 0, n, 0))


class Student(Protocol):
    """What a run trains."""

    spec: ModelSpec

    def learnt(self) -> Mapping[str, Learnt]:
        """The parameters by name, the same tensors every time."""

    def model(self, documents: Tensor) -> PackedModel:
        """The model as it is now, for windows of these documents [b, n]."""


class WholeStudent:
    """All weights of a checkpoint, or, without weights, of its config.json at random."""

    def __init__(self, job: Job, options: OptimizerOptions, seed: int) -> None:
        self.spec = job.spec
        self._tables = torch_tables(job.tables)
        has_weights = job.checkpoint.has_weights
        self.weights = checkpoint_weights(job) if has_weights else random_weights(job, seed)
        self._learnt: dict[str, Learnt] = {}
        seen: set[int] = set()
        for name, value in self.weights.items():
            if id(value) not in seen:  # some families use a tensor twice
                value.requires_grad_()
                is_matrix = _by_muon(name)
                decays = value.dim() == 2
                self._learnt[name] = Learnt(value, options.rate, decays, is_matrix)
                seen.add(id(value))

    def learnt(self) -> Mapping[str, Learnt]:
        return self._learnt

    def model(self, documents: Tensor) -> PackedModel:
        return PackedModel(self.spec, {**self.weights, **self._tables}, documents)


class Teacher:
    """A checkpoint's model, which does not learn."""

    def __init__(self, job: Job) -> None:
        self.spec = job.spec
        self.weights = {**checkpoint_weights(job), **torch_tables(job.tables)}

    def model(self, documents: Tensor) -> PackedModel:
        return PackedModel(self.spec, self.weights, documents)


def checkpoint_weights(job: Job) -> dict[str, Tensor]:
    """By their names in the file, float32. What is stored once is one tensor."""
    read = original_weights(job)
    items = [(item.name, item.source) for item in job.planned if item.source is not None]
    by_source = {source: read.tensor(name).clone() for name, source in items}
    return {name: by_source[source] for name, source in items}


def random_weights(job: Job, seed: int) -> dict[str, Tensor]:
    """Each a function of the seed, its name and its shape; what is stored once is one tensor. Norms
    are one, biases zero, matrices normal with INIT_STD; those that write to the residual less, by
    sqrt(2 layers) (GPT-2)."""
    into_residual = ("attn_o", "conv_out", "ffn_down", "ffn_down_exps", "ffn_down_shexp")
    narrow = INIT_STD / math.sqrt(2 * len(job.spec.layers))
    by_source: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for item in job.planned:
        if item.source is None:
            continue
        if item.source not in by_source:
            std = narrow if item.role in into_residual else INIT_STD
            if item.role == "conv_taps":
                std = 1.0  # a channel has a few only
            by_source[item.source] = _random(item, std, seed)
        weights[item.name] = by_source[item.source]
    return weights


def _random(item: PlannedTensor, std: float, seed: int) -> Tensor:
    if len(item.shape) == 1 and item.role != "conv_taps":
        return torch.full(item.shape, 0.0 if item.role.endswith("_bias") else 1.0)
    rng = np.random.default_rng((seed, zlib.crc32(item.name.encode())))
    noise = rng.standard_normal(item.shape, dtype=np.float32)
    return torch.from_numpy(noise * np.float32(std))


def _by_muon(name: str) -> bool:
    """Of Muon: the layers' matrices. Routers, stacked experts, and what a token looks up are
    AdamW's."""
    others = ("_norm", "_bias", "_exps", *FAITHFUL_ROLES)
    return name.startswith("layers.") and not name.endswith(others)
