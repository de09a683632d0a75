"""How far graphs are from the CPU runtime: logits of the same tokens, the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.npu.session import GraphSession, generate

from .ir import F32Array

N_TOKENS = 64
_RUN_MS = 1000.0


@dataclass(frozen=True)
class Difference:
    """relative: largest difference of a logit by the largest logit. kl_nats: mean KL(CPU || graph)
    of next tokens. top1: share of positions with the same most likely token."""

    n_tokens: int
    relative: float
    kl_nats: float
    top1: float


def compare_with_cpu(session: GraphSession, edge: Path, n_tokens: int = N_TOKENS) -> Difference:
    """On text that the graphs make, from id 1 on."""
    n_tokens = min(n_tokens, session.capacity)
    ids = [1, *generate(session, [1], n_tokens - 1)] if n_tokens > 1 else [1]
    session.rewind(0)
    return difference(session.append(ids), cpu_logits(edge, ids))


def cpu_logits(edge: Path, ids: Sequence[int]) -> F32Array:
    """Of every position, float32 [n_tokens, n_vocab], with keys and values in half precision."""
    from edgellm._native import Model, Session

    model = Model.load(edge, kv_format="F16")
    try:
        session = Session(model, len(ids), None, reuse_prefix=False)
        session.append(list(ids))
        rows: list[F32Array] = []
        while sum(map(len, rows)) < len(ids):
            rows.append(session.run_with_logits(_RUN_MS))
        session.close()
    finally:
        model.close()
    return np.concatenate(rows)


def difference(got: F32Array, wanted: F32Array) -> Difference:
    """Between logits [n_tokens, n_vocab]."""
    largest = float(np.abs(wanted).max()) or 1.0
    wanted_log, got_log = _log_softmax(wanted), _log_softmax(got)
    kl = (np.exp(wanted_log) * (wanted_log - got_log)).sum(-1)
    return Difference(
        n_tokens=len(wanted),
        relative=float(np.abs(got - wanted).max()) / largest,
        kl_nats=float(kl.mean()),
        top1=float((got.argmax(-1) == wanted.argmax(-1)).mean()),
    )


def _log_softmax(logits: F32Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    y: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    y = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return y
