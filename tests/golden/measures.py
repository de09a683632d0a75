"""How far two sets of logits are apart. Arrays [n_tokens, n_vocab]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgellm.evaluation.scores import log_softmax

Logits = npt.NDArray[np.floating]


def max_abs(a: Logits, b: Logits) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def nmse(wanted: Logits, got: Logits) -> float:
    """Squared error over squared size."""
    difference = got.astype(np.float64) - wanted.astype(np.float64)
    return float(np.square(difference).sum() / np.square(wanted.astype(np.float64)).sum())


def mean_kl(wanted: Logits, got: Logits) -> float:
    """KL(wanted || got) in nats per token."""
    p, q = log_softmax(wanted), log_softmax(got)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())
