"""How far graphs are from the CPU runtime: logits of the same tokens, the model's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgellm.npu.session import GraphSession

from .ir import F32Array

if TYPE_CHECKING:
    from edgellm._native import Session

N_TOKENS = 64
N_SINGLE = 8  # the last of them one by one, so that the shape of decoding is compared as well
_RUN_MS = 1000.0


@dataclass(frozen=True)
class Difference:
    """relative: largest difference of a logit by the largest logit; norm: the root of the summed
    squares of all differences by that of all logits. kl_nats: mean KL(CPU || graph) of next tokens.
    top1: share of positions with the same most likely token."""

    n_tokens: int
    relative: float
    norm: float
    kl_nats: float
    top1: float


def compare_with_cpu(session: GraphSession, edge: Path, n_tokens: int = N_TOKENS) -> Difference:
    """On text that the CPU runtime makes, from id 1 on, in the largest steps but for its end."""
    n_tokens = min(n_tokens, session.capacity)
    ids, wanted = _written_by_cpu(edge, n_tokens, session.capacity)
    n_first = max(n_tokens - N_SINGLE, 1)
    got = [session.append(ids[:n_first]), *(session.append([one]) for one in ids[n_first:])]
    return difference(np.concatenate(got), wanted)


def cpu_logits(edge: Path, ids: Sequence[int]) -> F32Array:
    """Of every position, float32 [n_tokens, n_vocab], with keys and values in half precision."""
    with _cpu_session(edge, len(ids)) as session:
        return _logits(session, ids)


def _written_by_cpu(edge: Path, n_tokens: int, n_ctx: int) -> tuple[list[int], F32Array]:
    """The likeliest tokens after id 1, and the logits after each."""
    ids, rows = [1], []
    with _cpu_session(edge, n_tokens, n_ctx) as session:
        while True:
            rows.append(_logits(session, ids[-1:]))
            if len(ids) == n_tokens:
                return ids, np.concatenate(rows)
            ids.append(int(rows[-1][-1].argmax()))


@contextmanager
def _cpu_session(edge: Path, n_tokens: int, n_ctx: int = 0) -> Iterator[Session]:
    """n_ctx: the context planned, which chooses a table of LongRoPE; 0: all of the model's."""
    from edgellm._native import Model, Session

    model = Model.load(edge, kv_format="F16", n_ctx=n_ctx)
    try:
        session = Session(model, n_tokens, None, reuse_prefix=False)
        yield session
        session.close()
    finally:
        model.close()


def _logits(session: Session, ids: Sequence[int]) -> F32Array:
    session.append(list(ids))
    rows: list[F32Array] = []
    while sum(map(len, rows)) < len(ids):
        rows.append(session.run_with_logits(_RUN_MS))
    return np.concatenate(rows)


def difference(got: F32Array, wanted: F32Array) -> Difference:
    """Between logits [n_tokens, n_vocab]."""
    largest = float(np.abs(wanted).max()) or 1.0
    wanted_log, got_log = _log_softmax(wanted), _log_softmax(got)
    kl = (np.exp(wanted_log) * (wanted_log - got_log)).sum(-1)
    return Difference(
        n_tokens=len(wanted),
        relative=float(np.abs(got - wanted).max()) / largest,
        norm=float(np.linalg.norm(got - wanted)) / (float(np.linalg.norm(wanted)) or 1.0),
        kl_nats=float(kl.mean()),
        top1=float((got.argmax(-1) == wanted.argmax(-1)).mean()),
    )


def _log_softmax(logits: F32Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    y: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    y = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return y
