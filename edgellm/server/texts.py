"""/v1/chat/completions and /v1/completions: the tasks of `completions/`, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import JSONResponse, Response

from ..completions.chat_task import ChatTask
from ..completions.fields import Fields, answers, sound
from ..completions.task import Task
from ..completions.text_task import TextTask
from ..completions.view import ModelView
from .engine import Engine
from .streams import EventStream

Body = dict[str, Any]


async def chat(engine: Engine, body: Body, resources: AsyncExitStack) -> Response:
    """POST /v1/chat/completions."""
    most = engine.settings.max_tokens
    return await _answer(engine, body, resources, lambda view, rest: ChatTask(view, rest, most))


async def completion(engine: Engine, body: Body, resources: AsyncExitStack) -> Response:
    """POST /v1/completions."""
    return await _answer(engine, body, resources, TextTask)


async def _answer(
    engine: Engine,
    body: Body,
    resources: AsyncExitStack,
    make: Callable[[ModelView, Body], Task[Any, Any]],
) -> Response:
    name, streams, rest = split(body)
    view = await resources.enter_async_context(engine.turn(name, n_texts(rest)))
    task = await asyncio.to_thread(make, view, rest)
    if isinstance(task, TextTask) and task.is_scoring_only:
        return JSONResponse(task.result())
    if streams:
        return EventStream(engine.chunks(task), resources.pop_all(), engine.settings.send_s)
    async for _ in engine.chunks(task):
        pass
    return JSONResponse(task.result())


def split(body: Body) -> tuple[str | None, bool, Body]:
    """The model asked for, whether the answer is to be streamed, and the other fields."""
    fields = Fields({name: body.get(name) for name in ("model", "stream")})
    name = fields.text("model")
    streams = fields.flag("stream") is True
    rest = {key: value for key, value in body.items() if key not in ("model", "stream")}
    return (None if name is None else sound(name, "model")), streams, rest


def n_texts(rest: Body) -> int:
    """How many texts a request asks for at once; what is wrong is found later."""
    prompt = rest.get("prompt")
    several = isinstance(prompt, list) and any(not isinstance(one, int) for one in prompt)
    return answers(Fields({"n": rest.get("n")})) * (len(prompt) if several and prompt else 1)
