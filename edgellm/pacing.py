"""How much of the time goes into steps: all of it, unless somebody asks for less.

Between slices of work there is rest. What a step computes never depends on when it runs, nor how
a prompt is cut into steps, so no token does.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, sleep
from typing import Protocol, TypeVar

Result = TypeVar("Result")
_NAP_S = 0.02  # between looks at whether the text was ended


class Pace(Protocol):
    """`duty`: the part of the time that may go into steps, above 0 and up to 1."""

    @property
    def duty(self) -> float: ...


_paces: list[Pace] = []


def follow(pace: Pace) -> None:
    """From now on, in all threads: of several, the lowest duty counts."""
    _paces.append(pace)


def unfollow(pace: Pace) -> None:
    """Idempotent."""
    _paces[:] = [one for one in _paces if one is not pace]


def paced(
    run: Callable[[float], Result], slice_ms: float, is_over: Callable[[], bool] | None = None
) -> Result:
    """`run(slice_ms)`, or a shorter slice and a rest, as long as the duty asks for and until
    `is_over()`."""
    duty = min((pace.duty for pace in _paces), default=1.0)
    if duty >= 1:
        return run(slice_ms)
    started = perf_counter()
    result = run(slice_ms * duty)
    _rest((perf_counter() - started) * (1 / duty - 1), is_over)
    return result


def _rest(rest_s: float, is_over: Callable[[], bool] | None) -> None:
    end = perf_counter() + rest_s
    while (left := end - perf_counter()) > 0 and not (is_over is not None and is_over()):
        sleep(min(left, _NAP_S))
