"""The part of `_native` that chooses tokens, on arrays; docs/SAMPLING.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

class SamplerParams:
    """Checked when made: InvalidArgumentError names the parameter that is out of range."""

    def __init__(
        self,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        xtc_probability: float = 0.0,
        xtc_threshold: float = 0.1,
        seed: int = 0,
        repetition_penalty: float = 1.0,
        penalty_window: int = 0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        dry_multiplier: float = 0.0,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_range: int = 0,
        dry_breakers: Sequence[Sequence[int]] = ...,
        logit_bias: Mapping[int, float] = ...,
        min_tokens: int = 0,
        end_ids: Sequence[int] = ...,
    ) -> None:
        """What each does, its range and the order of operations stand in docs/SAMPLING.md.

        temperature: 0 is greedy (ties to the lower id, no filter), at most 100.
        seed: 0 .. 2**64 - 1.
        dry_breakers: token sequences that a repeat never reaches back over.
        end_ids: banned until min_tokens tokens were generated.
        """

    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...
    @property
    def min_p(self) -> float: ...
    @property
    def seed(self) -> int: ...

def apply_rules(
    logits: npt.NDArray[np.float32],
    params: SamplerParams,
    history: Sequence[int] = ...,
    n_prompt: int | None = None,
) -> npt.NDArray[np.float32]:
    """Logits [n_vocab] after penalties, DRY, bias and bans, with -inf for what is banned.

    history: the tokens before the one to come; the first n_prompt of them are the prompt (None: not
    known, which presence_penalty, frequency_penalty and min_tokens refuse).
    """

def distribution(
    logits: npt.NDArray[np.float32],
    params: SamplerParams,
    step: int,
    history: Sequence[int] = ...,
    n_prompt: int | None = None,
) -> list[tuple[int, float]]:
    """(id, probability) of every token that sample() can return for these logits at this step."""
