"""The learning rate of a step, as a share of the recipe's. A function of the step alone."""

from __future__ import annotations

import math

from .recipe import ScheduleOptions


def rate_at(step: int, options: ScheduleOptions) -> float:
    """step: 0 .. steps - 1. "wsd" is warmup, stable, decay (Hu et al. 2024, arXiv:2404.06395); a
    decay of 0 steps leaves it stable."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    begin = options.steps - options.decay if options.kind == "wsd" else options.warmup
    if options.kind == "constant" or step < begin or begin == options.steps:
        return 1.0
    done = (step - begin + 1) / (options.steps - begin)
    if options.kind == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return 1 + (options.final - 1) * done
