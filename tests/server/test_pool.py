"""Models on demand: within the memory, the one used least recently goes first."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from edgellm.edgefile import read_header
from edgellm.errors import MemoryBudgetError
from edgellm.planner import plan_of
from edgellm.server.failures import Refusal
from edgellm.server.pool import ModelPool
from edgellm.testing import FakeModel
from server.serving import chat, serving


class Loader:
    """Counts what is loaded; `closed` what went."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, int | None]] = []
        self.closed: list[str] = []

    def __call__(self, path: Path, max_memory: int | None = None, **_: Any) -> FakeModel:
        self.loaded.append((path.stem, max_memory))
        model = FakeModel(name=path.stem)
        model.close = lambda: self.closed.append(path.stem)  # type: ignore[method-assign]
        return model


@pytest.fixture
def directory(tiny_edge: Path, tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        shutil.copy(tiny_edge, tmp_path / f"{name}.edge")
    return tmp_path


async def use(pool: ModelPool, *names: str) -> None:
    for name in names:
        async with pool.using(name) as view:
            assert view.name == name


def test_the_one_used_least_recently_goes_first(directory, tiny_edge):
    plan = plan_of(read_header(tiny_edge), 2**30)
    loader = Loader()

    async def work() -> None:
        whole = plan.bytes_at(0) + 2 * (plan.full_bytes - plan.bytes_at(0))
        pool = ModelPool({}, directory, max_memory=2 * whole, loader=loader)
        await use(pool, "a", "b", "a", "c", "a", "b")
        assert [name for name, _ in loader.loaded] == ["a", "b", "c", "b"]
        assert loader.closed == ["b", "c"]
        assert all(budget == whole for _, budget in loader.loaded)
        assert sum(one.budget for one in pool.loaded.values()) <= 2 * whole
        await pool.close()

    asyncio.run(work())


def test_models_in_use_stay_and_what_does_not_fit_is_refused(directory, tiny_edge):
    plan = plan_of(read_header(tiny_edge), 2**30)
    loader = Loader()

    async def work() -> None:
        pool = ModelPool({}, directory, max_memory=plan.full_bytes, loader=loader)
        async with pool.using("a"):
            with pytest.raises(MemoryBudgetError, match=r"b.edge needs .* \(a loaded and in use"):
                await use(pool, "b")
        await use(pool, "b")
        assert loader.closed == ["a"]
        with pytest.raises(Refusal, match="there are: a, b, c"):
            await use(pool, "d")
        small = ModelPool({}, directory, max_memory=1000, loader=loader)
        with pytest.raises(MemoryBudgetError, match="nothing loaded"):
            await use(small, "a")

    asyncio.run(work())


def test_without_a_limit_the_machine_says_what_fits(directory):
    loader = Loader()
    full = {"n": 2}

    def tight(path: Path, **options: Any) -> FakeModel:
        if len(loader.loaded) - len(loader.closed) >= full["n"]:
            raise MemoryBudgetError("no room", code="memory_budget")
        return loader(path, **options)

    async def work() -> None:
        pool = ModelPool({}, directory, loader=tight)
        await use(pool, "a", "b", "c")
        assert loader.closed == ["a"]
        assert [budget for _, budget in loader.loaded] == [None] * 3
        full["n"] = 0
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(pool.using("b"))
            with pytest.raises(MemoryBudgetError):
                await use(pool, "a")

    asyncio.run(work())


def test_one_load_serves_all_who_wait_and_idle_ones_go(directory):
    loader = Loader()

    async def work() -> None:
        pool = ModelPool({}, directory, keep_alive_s=1e-9, loader=loader)
        await asyncio.gather(*(use(pool, "a") for _ in range(10)))
        assert len(loader.loaded) == 1
        async with pool.using("b"):
            await pool.unload_idle()
            assert list(pool.loaded) == ["b"]
        await pool.unload_idle()
        assert loader.closed == ["a", "b"]

    asyncio.run(work())


def test_a_directory_is_served_as_it_is(directory):
    with serving(models_dir=directory) as server:
        assert server.ask("GET", "/health")[2]["models"] == []
        (directory / "b.edge").unlink()
        names = [one["id"] for one in server.ask("GET", "/v1/models")[2]["data"]]
        assert names == ["a", "c"]
        asked = {"model": "a", "prompt": "Hello", "max_tokens": 4}
        status, _, body = server.ask("POST", "/v1/completions", asked)
        assert (status, body["model"]) == (200, "a")
        assert server.ask("POST", "/v1/completions", {**asked, "model": "b"})[0] == 404
        assert server.ask("POST", "/v1/completions", {"prompt": "x"})[2]["error"]["code"] == (
            "model_missing"
        )
        (directory / "c.edge").write_bytes(b"broken")
        status, _, body = server.ask("POST", "/v1/completions", {**asked, "model": "c"})
        assert (status, body["error"]["type"]) == (500, "server_error")
        status, _, body = server.ask("POST", "/v1/chat/completions", chat(model="a"))
        assert (status, body["error"]["code"]) == (400, "template_missing")
