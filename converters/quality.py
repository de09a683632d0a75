"""What a conversion did to the model, on held-out text: divergence, samples of what it says, and
what the formats of the KV cache will cost it.

Of weights and KV alone: activations are float32 in both models. torch is imported on first use, so
that plain conversions do without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgellm.errors import UnsupportedError

from .calibrate.tokens import Tokens
from .plan import Job
from .quant.tiles import F32Array, U8Array
from .report import PlannedTensor, Quality, Sample

if TYPE_CHECKING:
    from torch import Tensor

    from .divergence import PlannedWeights

N_SAMPLES = 3
PROMPT_TOKENS = 16
SAMPLE_TOKENS = 24


def measure_quality(
    job: Job,
    tokenizer_blob: bytes | None,
    strips: Callable[[PlannedTensor], U8Array],
    held_out: Tokens,
    n_threads: int,
) -> tuple[Quality, dict[str, F32Array]]:
    """And what keys are balanced with, by the names of the tensors: none if they are not to be.
    strips: of a matrix, as they will be written. held_out: [n_windows, window_tokens].

    UnsupportedError without torch. Samples are greedy, from the beginnings of windows.
    """
    need_torch("measuring on held-out text")
    from .divergence import HeldOut, converted_weights, original_weights
    from .kv_gain import TEST_WINDOWS, judged, variants

    original = original_weights(job)
    converted = converted_weights(job, strips)
    seen = HeldOut(job.spec, job.tables, held_out, original, n_threads)
    hidden, head = converted.embed(held_out), converted.head()
    final, stored, balances = seen.run_formats(hidden, variants(), TEST_WINDOWS, converted.layer)
    divergence = seen.divergence(final, head)

    def kl(base: Tensor, other: Tensor) -> tuple[float, int]:
        found = seen.divergence(other, head, base, head)
        return found.kl, found.n_tokens

    kv = judged(stored, kl, job.recipe.rotate_keys, job.recipe.balance_keys)
    used = {name: np.asarray(value) for name, value in balances.items() if kv.balance_keys}
    quality = Quality(divergence, *_samples(job, original, converted, tokenizer_blob, held_out), kv)
    return quality, used


def _samples(
    job: Job,
    original: PlannedWeights,
    converted: PlannedWeights,
    tokenizer_blob: bytes | None,
    held_out: Tokens,
) -> tuple[tuple[Sample, ...], str | None]:
    """Greedy, from the beginnings of windows; without them, why."""
    from .divergence import plain_forward

    before, after = plain_forward(job, original), plain_forward(job, converted)
    if tokenizer_blob is None:
        return (), "no samples: the file has no tokenizer"
    if before is None or after is None:
        return (), "no samples: the model is too large to sample in float32"
    from edgellm._native import Tokenizer

    tokenizer = Tokenizer.from_blob(tokenizer_blob)
    samples = []
    for window in held_out[:N_SAMPLES].tolist():
        prompt = window[:PROMPT_TOKENS]
        texts = [tokenizer.decode(_greedy(next_id, prompt)) for next_id in (before, after)]
        samples.append(Sample(tokenizer.decode(prompt), *texts))
    return tuple(samples), None


def need_torch(what: str) -> None:
    """UnsupportedError that says how to get it, where it is missing."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UnsupportedError(
            f"{what} needs torch: pip install 'edgellm[compress]'", code="feature_unsupported"
        ) from error


def _greedy(next_id: Callable[[list[int]], int], prompt: list[int]) -> list[int]:
    ids = list(prompt)
    for _ in range(SAMPLE_TOKENS):
        ids.append(next_id(ids))
    return ids[len(prompt) :]
