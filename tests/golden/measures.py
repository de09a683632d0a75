"""How far two sets of logits are apart. Arrays [n_tokens, n_vocab]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating]


def max_abs(a: Logits, b: Logits) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def nmse(wanted: Logits, got: Logits) -> float:
    """Squared error over squared size."""
    difference = got.astype(np.float64) - wanted.astype(np.float64)
    return float(np.square(difference).sum() / np.square(wanted.astype(np.float64)).sum())


def mean_kl(wanted: Logits, got: Logits) -> float:
    """KL(wanted || got) in nats per token."""
    p, q = _log_softmax(wanted), _log_softmax(got)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
