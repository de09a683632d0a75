"""A process that kills itself, as `kill -9` would, at a counted point of its work.

Points are calls of os.fsync, os.rename and os.replace, before they happen, and what the work itself
counts: the same ones on a fast machine and on a slow one.
"""

from __future__ import annotations

import itertools
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Count = Callable[..., None]
_CALLS = ("fsync", "rename", "replace")


def ended_before_kill(work: Callable[[Count], object], at: int) -> bool:
    """Runs work(count) in a child that dies at its point number `at`, from 1 -> whether it ended
    before. The child must not fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that the child does not have
        child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return not os.WIFSIGNALED(status)
    points = itertools.count(1)

    def count(*_: object) -> None:
        if next(points) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with _counted(count):
            work(count)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def points_of(work: Callable[[Count], object]) -> int:
    """Runs work(count) here -> how many points it has."""
    points: list[None] = []

    def count(*_: object) -> None:
        points.append(None)

    with _counted(count):
        work(count)
    return len(points)


@contextmanager
def _counted(count: Count) -> Iterator[None]:
    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            count()
            return call(*args, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, before(getattr(os, name)))
        yield
