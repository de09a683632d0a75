"""What goes on in a server at once: models, slots, texts under way, and the end of it all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from threading import Event
from typing import Any

from ..completions.async_task import TaskRun
from ..completions.task import Chunk, Task, Whole
from ..completions.view import ModelView
from ..errors import MemoryBudgetError
from ..governor import Governor
from ..stream import TokenStream
from .failures import SERVER, Refusal
from .machine import Gauge, Gpus, expert_gauges, measured_peak, read_speed
from .metrics import Metrics, label
from .pool import Loader, ModelPool, named_paths
from .settings import ServerSettings
from .slots import Slots
from .tracing import Tracing

_REAP_S = 1.0
_RETRY_S = 0.05


class Engine:
    """Of one server; for its event loop only."""

    def __init__(self, settings: ServerSettings, loader: Loader | None = None) -> None:
        self.settings = settings
        paths = named_paths(settings.models) if loader is None else _as_given(settings.models)
        self.pool = ModelPool(
            paths,
            settings.models_dir,
            max_memory=settings.max_memory,
            keep_alive_s=settings.keep_alive_s,
            load_options=settings.load_options,
            **({} if loader is None else {"loader": loader}),
        )
        self.slots = Slots(settings.slots, settings.queue)
        self.metrics = Metrics()
        self.tracing = Tracing()
        self.is_draining = False
        self._gpus = Gpus()
        self._peak: float | None = None  # bytes per second
        self._runs: set[TaskRun[Any, Any]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the server listens. What loading the first model raises."""
        reaper = asyncio.create_task(self._reap())
        try:
            if self.settings.models:
                async with self.pool.using(next(iter(self.pool.paths()))):
                    pass
            with Governor(self.pool) if self.settings.govern else nullcontext():
                yield
        finally:
            reaper.cancel()
            await asyncio.gather(reaper, return_exceptions=True)
            await self.pool.close()

    async def drain(self) -> None:
        """No new requests; texts under way have `drain_s` to end, then they end where they are."""
        self.is_draining = True
        await asyncio.sleep(self.settings.drain_s)
        for run in list(self._runs):
            run.cancel()

    @asynccontextmanager
    async def turn(self, model: str | None, n_texts: int) -> AsyncIterator[ModelView]:
        """A model and slots for a request. Refusal 404, 429, 503; what loading raises."""
        if self.is_draining:
            raise Refusal(503, "the server is shutting down", "shutting_down", SERVER)
        async with self.slots.taken(n_texts), self.pool.using(self._named(model)) as view:
            yield view

    async def chunks(self, task: Task[Whole, Chunk]) -> AsyncIterator[Chunk]:
        """Of a task whose turn it is."""
        given_up = Event()
        run = TaskRun(
            task,
            lambda at: self._start(task, at, given_up),
            lambda: self.metrics.watch(task.model),
        )
        self._runs.add(run)
        try:
            with self.tracing.texts(task):
                async with aclosing(run.chunks()) as chunks:  # type: ignore[type-var]
                    async for chunk in chunks:
                        yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.n_cancelled += 1
            raise
        finally:
            given_up.set()
            self._runs.discard(run)

    async def gauges(self) -> list[Gauge]:
        """What is measured when it is asked for. The machine's bandwidth is, once, while no text
        is under way."""
        if self._peak is None and not self._runs:
            self._peak = 0.0  # the next one who asks does not wait
            self._peak = await asyncio.to_thread(measured_peak)
        return [*self._own_gauges(), *self._read_gauges(), *self._gpus.gauges()]

    def _read_gauges(self) -> list[Gauge]:
        """How fast weights are read, and by which experts."""
        loaded = dict(self.pool.loaded)
        stats = self.metrics.last_alone
        speeds = {
            name: read_speed(one.weight_bytes, stats[name])
            for name, one in loaded.items()
            if name in stats and one.weight_bytes
        }
        loads = {name: one.view.model.info().expert_load for name, one in loaded.items()}
        return [
            (
                "edgellm_read_peak_bytes_per_second",
                "Plain reads of this machine, measured once.",
                [("", self._peak)] if self._peak else [],
            ),
            (
                "edgellm_read_bytes_per_second",
                "Weights read by the last text of a model that ran alone.",
                [(label(model=name), speed) for name, speed in speeds.items() if speed],
            ),
            *expert_gauges(loads),
        ]

    def _own_gauges(self) -> list[Gauge]:
        """Of slots, models and KV."""
        loaded = {name: one.view.model.kv_figures() for name, one in self.pool.loaded.items()}
        kv = ("budget", "reserved", "kept", "idle", "used", "disk")
        return [
            ("edgellm_texts", "Slots taken.", [("", self.slots.n_taken)]),
            ("edgellm_waiting", "Requests in the queue.", [("", self.slots.n_waiting)]),
            ("edgellm_models_loaded", "Models in memory.", [("", len(loaded))]),
            (
                "edgellm_kv_bytes",
                "KV of a model: docs/KV.md; kept and idle are the prefix cache's.",
                [
                    (
                        label(model=name, kind=kind),
                        float(str(dict(figures).get(f"{kind}_bytes", 0))),
                    )
                    for name, figures in loaded.items()
                    for kind in kv
                ],
            ),
            (
                "edgellm_prefix_reused_tokens",
                "Tokens of prompts whose KV was there, since the model was loaded.",
                [
                    (label(model=name), figures["n_reused_tokens"])
                    for name, figures in loaded.items()
                ],
            ),
        ]

    def _named(self, model: str | None) -> str:
        if model is not None:
            return model
        names = list(self.pool.paths())
        if len(names) == 1:
            return names[0]
        raise Refusal(400, f"model is missing; there are: {', '.join(names):.400}", "model_missing")

    def _start(self, task: Task[Whole, Chunk], at: int, given_up: Event) -> TokenStream:
        """In the text's thread: waits for memory as long as other texts hold some."""
        while True:
            try:
                return task.start(at)
            except MemoryBudgetError:
                if len(self._runs) < 2 or given_up.wait(_RETRY_S):
                    raise

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(_REAP_S)
            await self.pool.unload_idle()


def _as_given(names: tuple[str, ...]) -> dict[str, Path]:
    return {name: Path(name) for name in names}
