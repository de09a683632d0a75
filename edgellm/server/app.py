"""The routes: OpenAI's, and those about the server."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..sanitize import visible_line
from . import embeddings, responses, texts
from .engine import Engine
from .failures import Refusal, told
from .guard import Guard, refused
from .metrics import CONTENT_TYPE
from .streams import ClientGone, read_json, unless_gone

_STATIC = Path(__file__).parent / "static"
_logger = logging.getLogger("edgellm.server")
Handler = Callable[[Request], Awaitable[Response]]
# What answers a body: resources belong to the answer where it is a stream.
Answering = Callable[[Engine, dict[str, Any], AsyncExitStack], Awaitable[Response]]


def create_app(engine: Engine) -> ASGIApp:
    """The application, guarded; `engine` is running."""
    posts: Mapping[str, Answering] = {
        "/v1/chat/completions": texts.chat,
        "/v1/completions": texts.completion,
        "/v1/responses": responses.response,
        "/v1/embeddings": embeddings.embeddings,
    }
    gets: Mapping[str, Callable[[Engine, Request], Awaitable[Response]]] = {
        "/": _page,
        "/static/{name}": _static,
        "/health": _health,
        "/metrics": _metrics,
        "/v1/models": _models,
        "/v1/models/{name:path}": _model,
    }
    routes = [
        *(Route(path, _post(engine, path, one), methods=["POST"]) for path, one in posts.items()),
        *(Route(path, _get(engine, path, one), methods=["GET"]) for path, one in gets.items()),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route})
    return Guard(app, engine.settings)


def _post(engine: Engine, path: str, answer: Answering) -> Handler:
    async def handle(request: Request) -> Response:
        settings = engine.settings
        engine.tracing.adopt(request.headers)
        try:
            body = await read_json(request, settings.max_body, settings.body_s)
            async with AsyncExitStack() as resources:
                work = answer(engine, body, resources)
                response = await unless_gone(request.receive, _awaited(work))
        except ClientGone:
            engine.metrics.n_cancelled += 1
            response = Response(status_code=499)  # nobody reads it
        except Exception as error:
            response = _failed(error, path)
        engine.metrics.requests[path, response.status_code] += 1
        return response

    return handle


def _get(
    engine: Engine, path: str, answer: Callable[[Engine, Request], Awaitable[Response]]
) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            response = await answer(engine, request)
        except Exception as error:
            response = _failed(error, path)
        engine.metrics.requests[path, response.status_code] += 1
        return response

    return handle


async def _awaited(work: Awaitable[Response]) -> Response:
    return await work


def _failed(error: Exception, path: str) -> Response:
    refusal = told(error)
    if refusal.status == 500:
        _logger.error("%s: %s", path, visible_line(str(error)), exc_info=refusal.code == "internal")
    return refused(refusal)


def _no_such_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = "method_not_allowed" if status == 405 else "not_found"
    return refused(Refusal(status, f"{code.replace('_', ' ')}; routes: docs/SERVER.md", code))


async def _health(engine: Engine, _: Request) -> Response:
    if engine.is_draining:
        return JSONResponse({"status": "shutting down"}, 503)
    return JSONResponse({"status": "ok", "models": sorted(engine.pool.loaded)})


async def _metrics(engine: Engine, _: Request) -> Response:
    return Response(engine.metrics.text(await engine.gauges()), media_type=CONTENT_TYPE)


async def _models(engine: Engine, _: Request) -> Response:
    data = [_described(engine, name, path) for name, path in engine.pool.paths().items()]
    return JSONResponse({"object": "list", "data": data})


async def _model(engine: Engine, request: Request) -> Response:
    name = request.path_params["name"]
    path = engine.pool.paths().get(name)
    if path is None:
        raise Refusal(404, f"there is no model {name!r:.100}", "model_not_found")
    return JSONResponse(_described(engine, name, path))


def _described(engine: Engine, name: str, path: Path) -> dict[str, Any]:
    try:
        created = int(path.stat().st_mtime)
    except OSError:
        created = int(time.time())
    is_loaded = name in engine.pool.loaded
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "edgellm",
        "loaded": is_loaded,
    }


async def _page(_: Engine, __: Request) -> Response:
    return FileResponse(_STATIC / "index.html")


async def _static(_: Engine, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in ("app.js", "style.css", "icon.svg"):
        raise Refusal(404, "not found", "not_found")
    return FileResponse(_STATIC / name)
