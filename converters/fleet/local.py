"""Steps as processes of this machine, as many at once as memory and cores allow.

A step's process ends with the build: it reads a pipe that nobody writes to, and that the system
closes when the build ends, however it ends.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgellm import _native, errors
from edgellm.errors import EdgeError

from .node import Node
from .schedule import Told

_SHARE_OF_FREE = 0.8  # of the memory that is available when a build begins
_MAX_ERROR_BYTES = 4000


def default_memory_bytes() -> int:
    """What a build may take: most of what is free."""
    return int(_SHARE_OF_FREE * _native.memory_figures()["available_bytes"])


class LocalEngine:
    """memory_bytes: that all steps together may take, by their estimates; one runs alone even if
    it may need more. workers: at once, at most; of steps with GPUs one, whichever those are.
    artefacts: a URL that has steps as well."""

    def __init__(self, work: Path, memory_bytes: int, workers: int, artefacts: str = "") -> None:
        self._memory_bytes, self._workers = memory_bytes, workers
        self._where = ["--work", str(work), *(["--artefacts", artefacts] if artefacts else [])]
        self._told: queue.Queue[Told] = queue.Queue()
        self._running: dict[str, tuple[Node, subprocess.Popen[bytes], threading.Thread]] = {}

    def has_room(self, node: Node) -> bool:
        running = [one for one, _, _ in self._running.values()]
        fits = sum(one.memory_bytes for one in running) + node.memory_bytes <= self._memory_bytes
        if node.gpus and any(one.gpus for one in running):
            return False
        return not self._running or (fits and len(self._running) < self._workers)

    def start(self, node: Node) -> None:
        command = [sys.executable, "-m", "edgellm", "fleet", "step", node.digest]
        process = subprocess.Popen(
            [*command, *self._where, "--events"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        reader = threading.Thread(target=self._read, args=(node, process), daemon=True)
        self._running[node.digest] = (node, process, reader)
        reader.start()

    def wait(self) -> Told:
        told = self._told.get()
        if told.has_ended:
            _, process, reader = self._running.pop(told.digest)
            _close(process, reader)
        return told

    def close(self) -> None:
        """Kills what still runs; what it was at goes on with the next build."""
        for _, process, reader in self._running.values():
            process.kill()
            _close(process, reader)
        self._running.clear()

    def _read(self, node: Node, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        errors_read: list[bytes] = []
        drain = threading.Thread(target=lambda: errors_read.append(_tail(process)), daemon=True)
        drain.start()
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = _event(line) or last
            if "what" in last:
                self._told.put(Told(node.digest, last["what"], last["n_done"], last["n_total"]))
        drain.join()
        process.wait()
        if "result" in last and process.returncode == 0:
            self._told.put(Told(node.digest, result=last["result"]))
        else:
            text = b"".join(errors_read).decode(errors="replace").strip()
            self._told.put(Told(node.digest, error=_failure(last, process.returncode, text)))


def say_events(say: Callable[[str], object]) -> Callable[[str, int, int], None]:
    """A progress callback that tells the engine, a line each."""

    def show(what: str, n_done: int, n_total: int) -> None:
        say(json.dumps({"what": what, "n_done": n_done, "n_total": n_total}))

    return show


def end_with_parent() -> None:
    """Ends this process when whoever started it has closed its end of stdin, or is gone."""

    def watch() -> None:
        while os.read(0, 1 << 16):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None  # something printed by a library
    return value if isinstance(value, dict) else None


def _failure(last: dict[str, Any], status: int, text: str) -> EdgeError:
    """The error that the step's process told of, as it was; or how it ended."""
    told = last.get("error")
    if isinstance(told, dict):
        kind = getattr(errors, str(told.get("type")), EdgeError)
        known = kind if isinstance(kind, type) and issubclass(kind, EdgeError) else EdgeError
        return known(str(told.get("message")), str(told.get("code")))
    lines = text.splitlines() or ["no message"]
    how = f"killed by signal {-status}" if status < 0 else f"exit code {status}"
    message = f"its process ended with {how}: {lines[-1][:500]}"
    return errors.DeviceError(message, code="fleet_worker")


def _tail(process: subprocess.Popen[bytes]) -> bytes:
    """The end of what it says on stderr."""
    assert process.stderr is not None
    kept = b""
    for line in process.stderr:
        kept = (kept + line)[-_MAX_ERROR_BYTES:]
    return kept


def _close(process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
    """The process has ended, or does: its reader comes to the end of the pipes."""
    reader.join()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()
