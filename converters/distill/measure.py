"""How far a model is from another on packed text. Knows no files."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..report import Divergence
from .data import Packed
from .losses import next_token
from .student import PackedModel


class Measured(Protocol):
    """A student, a teacher, or a file as it is."""

    def model(self, documents: Tensor) -> PackedModel:
        """The model for windows of these documents [b, n]."""


@torch.no_grad()
def divergence(original: Measured, other: Measured, valid: Packed) -> Divergence:
    """KL(original || other), agreement, and the next-token losses of both, window by window. One
    object given twice runs once."""
    sums = np.zeros(4)
    n_targets = 0
    for window in range(len(valid)):
        tokens, documents = tensors(valid.batch(np.array([window])))
        got = log_probs(other.model(documents), tokens)[0]
        wanted = got
        if original is not other:
            wanted = log_probs(original.model(documents), tokens)[0]
        sums[0] += float((wanted.exp() * (wanted - got)).sum(-1).double().sum())
        sums[1] += float((wanted.argmax(-1) == got.argmax(-1)).sum())
        for place, rows in ((2, wanted), (3, got)):
            losses, counted = next_token(rows[None], tokens, documents)
            sums[place] += float((losses * counted).double().sum())
        n_targets += int(counted.sum())
    kl, same = sums[:2] / valid.tokens.size
    before, after = sums[2:] / max(1, n_targets)
    return Divergence(max(float(kl), 0.0), float(same), before, after, int(valid.tokens.size))


def log_probs(model: PackedModel, tokens: Tensor) -> Tensor:
    """tokens [b, n] -> [b, n, n_vocab]."""
    return model.head(model.last_hidden(tokens)).log_softmax(-1)


def tensors(data: Packed) -> tuple[Tensor, Tensor]:
    """tokens and documents, [b, n] int64."""
    return torch.from_numpy(data.tokens).long(), torch.from_numpy(data.documents).long()
