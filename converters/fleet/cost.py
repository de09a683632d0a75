"""What a step of a build may take, before it runs. Estimates, of constants taken on one machine
(two x86 cores with AVX-512, one thread); a build corrects them by what its own steps took.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..compress.recipe import ChosenStep
from .node import DESCRIBE, MEASURE

_START_SECONDS = 1.5
_FLOPS = 2e10  # of float32 products on one core
_PACK_SECONDS = 6e-8  # per weight: rounded and written
_CALIBRATE_SECONDS = 4e-6  # per weight: moments, and codes by GPTQ
_PASS_SECONDS = 2e-6  # per weight: formats tried, one after the other
_HASH_SECONDS = 3e-9  # per weight, of four to eight bits
_MIB = 1 << 20
_BASE_BYTES = 180 * _MIB  # interpreter, numpy, and blocks that are on their way
_TORCH_BYTES = 450 * _MIB


@dataclass(frozen=True)
class Cost:
    """seconds: on one thread. memory_bytes: at the most, file pages not counted."""

    seconds: float
    memory_bytes: int


def cost_of_step(chosen: ChosenStep, n_weights: int, *, calibrated: bool) -> Cost:
    """n_weights: of the model that it takes."""
    options = chosen.options
    schedule = getattr(options, "schedule", None)
    if schedule is not None:
        n_tokens = schedule.steps * options.batch.windows * options.batch.accumulate
        return _learning(n_tokens * options.window_tokens, n_weights)
    if chosen.name == "draft_head":
        return _learning(options.steps * options.windows * options.window_tokens, n_weights // 8)
    if chosen.name == "quantize" and not calibrated:
        return Cost(_START_SECONDS + n_weights * _PACK_SECONDS, _BASE_BYTES)
    per_weight = _PASS_SECONDS if getattr(options, "target_bpw", 0) else _CALIBRATE_SECONDS
    seconds = _START_SECONDS + n_weights * (per_weight + _PACK_SECONDS)
    return Cost(seconds, _BASE_BYTES + _TORCH_BYTES + n_weights)


def cost_of(do: str, n_weights: int, n_tokens: int = 0) -> Cost:
    """Of what is done besides the steps of recipes. n_tokens: that are measured on."""
    if do == DESCRIBE:
        return Cost(_START_SECONDS + n_weights * _HASH_SECONDS, _BASE_BYTES)
    assert do == MEASURE
    seconds = _START_SECONDS + 4.0 * n_weights * n_tokens / _FLOPS
    return Cost(seconds, _BASE_BYTES + _TORCH_BYTES + 8 * n_weights)


def _learning(n_tokens: int, n_weights: int) -> Cost:
    """Forward, backward and the teacher; weights, gradients, two moments, and the teacher's."""
    seconds = _START_SECONDS + 8.0 * n_weights * n_tokens / _FLOPS
    return Cost(seconds, _BASE_BYTES + _TORCH_BYTES + 20 * n_weights)
