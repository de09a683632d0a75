"""The models of a server: found by name, loaded when asked for, unloaded when others need room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ..completions.view import ModelView
from ..edgefile import read_header
from ..errors import MemoryBudgetError
from ..locate import resolve
from ..model import Model, load
from ..options import DEFAULT_KV
from ..planner import mib, plan_of
from .failures import Refusal
from .machine import weight_bytes

Loader = Callable[..., Model]
_LEAST_CTX = 1024  # tokens of KV without which a model is not worth loading
_CONTEXTS = 2  # whole ones that a model is given room for, if there is


@dataclass
class Loaded:
    """A model in memory. `budget`: bytes that it may take; 0 where none are counted.
    `weight_bytes`: what a step of one token reads."""

    view: ModelView
    budget: int
    weight_bytes: int = 0
    n_users: int = 0
    last_used: float = 0.0


class ModelPool:
    """`paths`: files by name. For the event loop only; files are opened in threads."""

    def __init__(
        self,
        paths: dict[str, Path],
        directory: Path | None = None,
        *,
        max_memory: int | None = None,
        keep_alive_s: float | None = None,
        load_options: dict[str, Any] | None = None,
        loader: Loader = load,
    ) -> None:
        self._paths = paths
        self._directory = directory
        self._max_memory = max_memory
        self._keep_alive_s = keep_alive_s
        self._options = load_options or {}
        self._loader = loader
        self._loading = asyncio.Lock()
        self.loaded: dict[str, Loaded] = {}

    def paths(self) -> dict[str, Path]:
        """All that can be asked for: the directory is looked at each time."""
        found = dict(self._paths)
        for path in sorted(self._directory.glob("*.edge")) if self._directory else ():
            found.setdefault(path.stem, path)
        return found

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[ModelView]:
        """The model of that name, which stays meanwhile. Refusal 404; what loading raises."""
        model = self.loaded.get(name) or await self._load(name)
        model.n_users += 1
        try:
            yield model.view
        finally:
            model.n_users -= 1
            model.last_used = monotonic()

    async def unload_idle(self) -> None:
        """Close what nobody used for `keep_alive_s`."""
        if self._keep_alive_s is None:
            return
        async with self._loading:
            before = monotonic() - self._keep_alive_s
            idle = [n for n, m in self.loaded.items() if m.n_users == 0 and m.last_used < before]
            for name in idle:
                await self._unload(name)

    def trim(self) -> int:
        """Give back KV that no text holds, of all models; the bytes. From any thread."""
        return sum(loaded.view.model.trim() for loaded in list(self.loaded.values()))

    async def close(self) -> None:
        """Close them all; texts under way end."""
        for name in list(self.loaded):
            await self._unload(name)

    async def _load(self, name: str) -> Loaded:
        async with self._loading:
            if name in self.loaded:  # while this one waited
                return self.loaded[name]
            path = self.paths().get(name)
            if path is None:
                known = ", ".join(sorted(self.paths())) or "none"
                message = f"there is no model {name!r:.100}; there are: {known:.400}"
                raise Refusal(404, message, "model_not_found")
            budget = await self._make_room(path)
            while True:
                try:
                    model = await asyncio.to_thread(self._open, path, budget)
                    break
                except MemoryBudgetError:
                    if not await self._unload_one():
                        raise
            n_bytes = await asyncio.to_thread(weight_bytes, path)
            self.loaded[name] = Loaded(
                ModelView(model, name), budget, n_bytes, last_used=monotonic()
            )
            return self.loaded[name]

    def _open(self, path: Path, budget: int) -> Model:
        return self._loader(path, **self._options, **({"max_memory": budget} if budget else {}))

    async def _make_room(self, path: Path) -> int:
        """Bytes that a file may take, others unloaded if it must be; 0 without a limit."""
        if self._max_memory is None:
            return 0
        header = await asyncio.to_thread(read_header, path)
        plan = plan_of(header, self._max_memory, self._options.get("kv", DEFAULT_KV))
        least = plan.bytes_at(min(plan.n_ctx_train, _LEAST_CTX))
        while (left := self._max_memory - sum(m.budget for m in self.loaded.values())) < least:
            if not await self._unload_one():
                busy = ", ".join(sorted(self.loaded)) or "nothing"
                message = (
                    f"{path.name} needs {mib(least)} at least, and of {mib(self._max_memory)} "
                    f"{mib(max(left, 0))} are left ({busy} loaded and in use)"
                )
                raise MemoryBudgetError(message, code="memory_budget")
        wanted = plan.bytes_at(0) + _CONTEXTS * (plan.full_bytes - plan.bytes_at(0))
        return min(left, max(wanted, least))

    async def _unload_one(self) -> bool:
        """The one used least recently, if there is one that nobody uses."""
        idle = [(model.last_used, name) for name, model in self.loaded.items() if not model.n_users]
        if not idle:
            return False
        await self._unload(min(idle)[1])
        return True

    async def _unload(self, name: str) -> None:
        model = self.loaded.pop(name)
        with suppress(Exception):  # it is going anyway
            await asyncio.to_thread(model.view.model.close)


def named_paths(names: tuple[str, ...]) -> dict[str, Path]:
    """Files of what `edgellm.load()` would take: a path's name is its stem, others are their own.
    FormatError."""
    found = {}
    for name in names:
        path = resolve(name)
        looks_like_path = name.endswith(".edge") or Path(name).exists()
        found[Path(name).stem if looks_like_path else name] = path
    return found
