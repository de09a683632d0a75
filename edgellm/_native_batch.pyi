"""The part of `_native` for several sessions at once, from one thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ._native import SamplerParams, Session
from .errors import EdgeError

def run_batch(
    sessions: Sequence[Session],
    budget_ms: float = 80.0,
    keep: Literal["nothing", "logits", "hidden"] = "nothing",
) -> list[tuple[bool, npt.NDArray[np.float32] | None, EdgeError | None]]:
    """Process queued tokens of sessions of one model, none twice, in steps that they share, until
    one that had some pending has none, or the budget is spent; at least one step.

    For each: whether nothing is pending; the rows that `keep` asks for, as of run_with_logits() or
    run_with_hidden(); and the error that run() would have raised, which is no other session's.
    Threads that run() sessions of one model share steps, too.
    """

def sample_batch(
    sessions: Sequence[Session],
    params: Sequence[SamplerParams],
    n_prompts: Sequence[int],
    allowed: Sequence[npt.NDArray[np.uint32] | None] = (),
) -> list[tuple[int, float] | None]:
    """Session.sample() of each, on several threads; None where that would raise."""
