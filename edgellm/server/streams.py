"""Answers that come in pieces, and what happens when nobody takes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .failures import Refusal, error_object, told

T = TypeVar("T")
_PING_S = 15.0  # a prompt may take long: proxies and clients close what is silent
_PING = b": still here\n\n"


class ClientGone(Exception):
    """The client has closed the connection."""


class EventStream(Response):
    """Server-sent events: each of `events` as JSON, and [DONE] where `is_openai`. `resources` are
    freed at the end, whatever it is. A client that does not take an event within `send_s` is
    given up."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[Mapping[str, Any]],
        resources: AsyncExitStack,
        send_s: float,
        *,
        ends_with_done: bool = True,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events
        self._resources = resources
        self._send_s = send_s
        self._ends_with_done = ends_with_done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        del self.headers["content-length"]
        async with self._resources:
            try:
                await unless_gone(receive, self._write(send))
            except (ClientGone, TimeoutError):
                return

    async def _write(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async with aclosing(_pieces(self._events, self._ends_with_done)) as pieces:  # type: ignore[type-var]
            async for piece in _with_pings(pieces):
                async with asyncio.timeout(self._send_s):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; ClientGone, and `work` cancelled, when the client goes first. The body of
    the request was read before."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for one in (working, watching):
            one.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def read_json(request: Request, most_bytes: int, within_s: float) -> dict[str, Any]:
    """The body of a request, an object. Refusal 400, 408, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = f"the body must be application/json, but is {kind or 'of no type'!r:.80}"
        raise Refusal(415, message, "content_type")
    try:
        async with asyncio.timeout(within_s):
            data = await _body(request, most_bytes)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {within_s:g} s", "slow_body") from None
    try:
        value = json.loads(data)
    except RecursionError:
        raise Refusal(400, "the body is nested too deep", "json_depth") from None
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON: {error}", "json_syntax") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object", "json_type")
    return value


async def _body(request: Request, most_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    data = bytearray()
    if not announced.isdecimal() or int(announced) <= most_bytes:
        async for piece in request.stream():
            data += piece
            if len(data) > most_bytes:
                break
        else:
            return bytes(data)
    raise Refusal(413, f"the body may have {most_bytes} bytes", "body_too_large")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pieces(
    events: AsyncIterator[Mapping[str, Any]], ends_with_done: bool
) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield _event(event)
    except Exception as error:
        yield _event(error_object(told(error)))
        return
    if ends_with_done:
        yield b"data: [DONE]\n\n"


def _event(value: Mapping[str, Any]) -> bytes:
    kind = value.get("type")
    name = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{name}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


async def _with_pings(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A comment wherever the next piece takes long."""
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(_next(pieces))
            done, _ = await asyncio.wait({coming}, timeout=_PING_S)
            if not done:
                yield _PING
                continue
            try:
                piece = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield piece
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


def _next(pieces: AsyncIterator[bytes]) -> Awaitable[bytes]:
    return pieces.__anext__()
