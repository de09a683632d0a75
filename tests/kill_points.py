"""Work that is killed, as `kill -9` would, at counted points of it.

Points are calls of os.fsync, os.rename and os.replace, before they happen, and what the work itself
counts: the same ones on a fast machine and on a slow one. Every attempt is a child of a process
that has imported what the work needs and run nothing: threads do not outlast a fork.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Count = Callable[..., None]
_CALLS = ("fsync", "rename", "replace")
_SCRIPT = """
import sys
sys.path[:0] = {paths!r}
from kill_points import serve
{setup}
serve(work)
"""


class KillableWork:
    """setup: Python code that defines work(count); sys.argv[1:] are `arguments`."""

    def __init__(self, setup: str, *arguments: object) -> None:
        paths = [str(Path(__file__).parent), *filter(None, sys.path)]
        script = _SCRIPT.format(paths=paths, setup=setup)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> KillableWork:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ended_before_kill(self, at: int) -> bool:
        """Runs the work until its point number `at`, from 1 -> whether it ended before. The work
        must not fail."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{at}\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        assert status in (0, -signal.SIGKILL)
        return status == 0


def serve(work: Callable[[Count], object]) -> None:
    """For every number on stdin a child that dies there; its status to stdout."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(work, int(line))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)


def _run(work: Callable[[Count], object], at: int) -> None:
    points = itertools.count(1)

    def count(*_: object) -> None:
        if next(points) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            count()
            return call(*args, **options)

        return counted

    for name in _CALLS:
        setattr(os, name, before(getattr(os, name)))
    try:
        work(count)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
