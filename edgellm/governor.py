"""Keeps a machine cool, its battery alive and its memory free while models run on it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Protocol

from . import pacing, sysfs
from .closing import Closing
from .errors import EdgeError, InvalidArgumentError

if TYPE_CHECKING:
    import os
    from typing import Self

_LEAST_DUTY = 0.25
_RISE = 0.1  # of the duty, from one look to the next: heat comes back at once
_COOL = 10.0  # degrees below the limit from which on heat counts
_LOW_BATTERY = ((10.0, 0.25), (20.0, 0.5))  # (percent or less, duty), when it is what there is
_STALL_PERCENT = 10.0  # of the time in which tasks wait for memory
_FILL = 0.95  # of what a cgroup may hold


@dataclass(frozen=True)
class GovernorState:
    """What a `Governor` saw when it last looked, and what it did. `duty`: the part of the time that
    goes into steps; `reason`: "heat", "battery" or "" for what lowered it. None: unknown.

    `headroom_celsius`: degrees to the nearest limit of any sensor; `battery_percent`, and
    `on_battery`, whether it is discharging; `stall_percent`: of the last 10 s, how long tasks
    waited for memory; `fill`: of what the cgroup may hold, 1.0 is all. `trimmed_bytes`: KV that was
    given back so far.
    """

    duty: float = 1.0
    reason: str = ""
    headroom_celsius: float | None = None
    battery_percent: float | None = None
    on_battery: bool = False
    stall_percent: float | None = None
    fill: float | None = None
    trimmed_bytes: int = 0


class Trimmable(Protocol):
    """A `Model`, or what has several."""

    def trim(self) -> int:
        """Give back what can be; the bytes."""


class Governor(Closing):
    """While it is open, models of this process work less when the machine is hot or its battery is
    nearly empty, and `models` give back KV that no text holds when memory is short.

        with edgellm.load("demo") as model, edgellm.Governor(model):
            model.generate("Once upon a time", max_tokens=100)

    Texts come slower, with rests between the steps; no token changes. It looks every `poll_s`
    seconds, in a thread of its own, at what Linux says under `root`: temperatures and their limits,
    batteries, memory pressure (PSI) and the limits of cgroups, version 1 and 2. On systems that say
    nothing it does nothing. docs/PLAN.md has the rules.
    """

    def __init__(
        self, *models: Trimmable, poll_s: float = 1.0, root: str | os.PathLike[str] = "/"
    ) -> None:
        if not (isfinite(poll_s) and poll_s > 0):
            message = f"poll_s must be above 0 seconds, but is {poll_s}"
            raise InvalidArgumentError(message, code="invalid_argument")
        self._models = models
        self._poll_s = poll_s
        self._root = Path(root)
        self._lock = Lock()
        self._state = GovernorState()
        self._is_over = Event()
        self._thread: Thread | None = None

    @property
    def state(self) -> GovernorState:
        """As of the last look."""
        return self._state

    @property
    def duty(self) -> float:
        """`state.duty`."""
        return self._state.duty

    def poll(self) -> GovernorState:
        """Look now, and do what is to be done. From any thread."""
        with self._lock:
            before = self._state
            headroom = sysfs.heat_headroom(self._root)
            battery = sysfs.battery(self._root)
            stall, fill = sysfs.memory_stall(self._root), sysfs.memory_fill(self._root)
            duty, reason = _wanted(headroom, battery)
            duty = min(duty, before.duty + _RISE)
            trimmed = before.trimmed_bytes
            if (stall or 0.0) >= _STALL_PERCENT or (fill or 0.0) >= _FILL:
                trimmed += self._trim()
            self._state = GovernorState(
                duty,
                (reason or before.reason) if duty < 1 else "",
                headroom,
                None if battery is None else battery.percent,
                battery is not None and battery.is_discharging,
                stall,
                fill,
                trimmed,
            )
            return self._state

    def __enter__(self) -> Self:
        if self._thread is None and not self._is_over.is_set():
            self.poll()
            pacing.follow(self)
            self._thread = Thread(target=self._watch, name="edgellm-governor", daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Everything runs at full speed again. Idempotent."""
        pacing.unfollow(self)
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        while not self._is_over.wait(self._poll_s):
            self.poll()

    def _trim(self) -> int:
        n_bytes = 0
        for model in self._models:
            with suppress(EdgeError):  # one that was closed has nothing to give
                n_bytes += model.trim()
        return n_bytes


def _wanted(headroom: float | None, battery: sysfs.Battery | None) -> tuple[float, str]:
    """The duty, and what asks for it."""
    room = max(0.0, min(1.0, (inf if headroom is None else headroom) / _COOL))
    heat = _LEAST_DUTY + (1 - _LEAST_DUTY) * room
    charge = 1.0
    if battery is not None and battery.is_discharging:
        charge = next((duty for most, duty in _LOW_BATTERY if battery.percent <= most), 1.0)
    if min(heat, charge) >= 1:
        return 1.0, ""
    return (heat, "heat") if heat <= charge else (charge, "battery")
