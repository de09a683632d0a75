"""Which format for which tensor: the least divergence within so many bytes, or the other way round.

A multiple-choice knapsack, solved by dynamic programming over byte levels. It finds every point of
the Pareto front; the Lagrangian relaxation (one price per byte for all tensors) finds only those on
its convex hull. Levels are exact where the sizes have a common divisor that is not too small; else
they are rounded up, and what that leaves over is filled greedily. Knows no tensor and no format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.errors import InvalidArgumentError

MAX_LEVELS = 1 << 16  # of bytes: rounding costs at most a tensor's share of 1 / 65536 of the span
MAX_OPTIONS = 255


@dataclass(frozen=True)
class Option:
    """One way to store a unit. kl: what it adds to the divergence, nats per token."""

    format: str
    n_bytes: int
    kl: float


@dataclass(frozen=True)
class Unit:
    """What gets one format: a tensor."""

    name: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Choice:
    """formats: by name of the unit. n_bytes and kl: summed over the units."""

    formats: dict[str, str]
    n_bytes: int
    kl: float


class Chooser:
    """All best choices over `units` at once. InvalidArgumentError: no unit, a unit without options,
    sizes below zero, or a divergence that is negative or not finite."""

    def __init__(self, units: Sequence[Unit]) -> None:
        _check(units)
        self._names = [unit.name for unit in units]
        self._options = [_useful(unit.options) for unit in units]
        self._smallest = sum(options[0].n_bytes for options in self._options)
        self._step = self._step_bytes()
        self._costs = [
            [-(-(option.n_bytes - options[0].n_bytes) // self._step) for option in options]
            for options in self._options
        ]
        self._kl, self._picks = self._solve()

    @property
    def smallest(self) -> Choice:
        """Every unit at its fewest bytes."""
        return self._choice([0] * len(self._options))

    @property
    def best(self) -> Choice:
        """Every unit at its least divergence."""
        return self._choice([len(options) - 1 for options in self._options])

    def within_bytes(self, n_bytes: int) -> Choice | None:
        """The least divergence in at most n_bytes; None where even the smallest is larger."""
        if n_bytes < self._smallest:
            return None
        level = min((n_bytes - self._smallest) // self._step, len(self._kl) - 1)
        return self._choice(self._filled(self._picked(level), n_bytes))

    def within_kl(self, kl: float) -> Choice | None:
        """The fewest bytes with at most this divergence; None where even the best has more."""
        if not self._kl[-1] <= kl:
            return None
        level = int(np.argmax(self._kl <= kl))
        return self._choice(self._picked(level))

    def front(self, n_points: int = 24) -> list[Choice]:
        """Choices none of which is beaten in both, smallest first: both ends, and between them
        points that stand closer where the file is small and divergence falls fast."""
        shares = np.linspace(0, 1, n_points) ** 2
        levels = np.unique((shares * (len(self._kl) - 1)).round().astype(np.int64))
        points: list[Choice] = []
        for level in levels:
            n_bytes = self._smallest + int(level) * self._step
            point = self._choice(self._filled(self._picked(int(level)), n_bytes))
            if not points or point.kl < points[-1].kl:
                points.append(point)
        return points

    def _step_bytes(self) -> int:
        grown = [
            option.n_bytes - options[0].n_bytes for options in self._options for option in options
        ]
        span = sum(options[-1].n_bytes - options[0].n_bytes for options in self._options)
        return max(math.gcd(*grown), -(-span // MAX_LEVELS), 1)

    def _solve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
        """Least divergence at every level, and the option that the last of the units so far takes
        there: [n_levels], [n_units, n_levels]."""
        n_levels = 1 + sum(costs[-1] for costs in self._costs)
        kl = np.zeros(n_levels)
        picks = np.zeros((len(self._options), n_levels), dtype=np.uint8)
        for unit, (options, costs) in enumerate(zip(self._options, self._costs, strict=True)):
            found = np.full(n_levels, math.inf)
            for index, (option, cost) in enumerate(zip(options, costs, strict=True)):
                shifted = np.full(n_levels, math.inf)
                shifted[cost:] = kl[: n_levels - cost] + option.kl
                better = shifted < found
                found[better] = shifted[better]
                picks[unit, better] = index
            kl = found
        return kl, picks

    def _picked(self, level: int) -> list[int]:
        picked = [0] * len(self._options)
        for unit in reversed(range(len(self._options))):
            picked[unit] = int(self._picks[unit, level])
            level -= self._costs[unit][picked[unit]]
        return picked

    def _filled(self, picked: list[int], n_bytes: int) -> list[int]:
        """Steps up that still fit, the one that gains most per byte first."""
        left = n_bytes - self._choice(picked).n_bytes
        while True:
            steps = []
            for unit, index in enumerate(picked):
                here = self._options[unit][index]
                for other in range(index + 1, len(self._options[unit])):
                    option = self._options[unit][other]
                    grown = option.n_bytes - here.n_bytes
                    if grown <= left:
                        steps.append(((here.kl - option.kl) / grown, unit, other, grown))
            if not steps:
                return picked
            _, unit, other, grown = max(steps)
            picked[unit] = other
            left -= grown

    def _choice(self, picked: Sequence[int]) -> Choice:
        chosen = [options[index] for options, index in zip(self._options, picked, strict=True)]
        return Choice(
            {name: option.format for name, option in zip(self._names, chosen, strict=True)},
            sum(option.n_bytes for option in chosen),
            math.fsum(option.kl for option in chosen),
        )


def _useful(options: Sequence[Option]) -> list[Option]:
    """Without those that another beats or equals in both; by size, so that kl falls."""
    useful: list[Option] = []
    for option in sorted(options, key=lambda option: (option.n_bytes, option.kl)):
        if not useful or option.kl < useful[-1].kl:
            useful.append(option)
    return useful


def _check(units: Sequence[Unit]) -> None:
    if not units:
        raise InvalidArgumentError("nothing to choose formats for", code="invalid_argument")
    for unit in units:
        if not 1 <= len(unit.options) <= MAX_OPTIONS:
            raise InvalidArgumentError(
                f"'{unit.name}': {len(unit.options)} formats to choose from, 1 to {MAX_OPTIONS} "
                "are possible",
                code="invalid_argument",
            )
        for option in unit.options:
            if option.n_bytes < 0 or not 0 <= option.kl < math.inf:
                raise InvalidArgumentError(
                    f"'{unit.name}' in {option.format}: {option.n_bytes} bytes and a divergence of "
                    f"{option.kl} cannot be chosen between",
                    code="invalid_argument",
                )
