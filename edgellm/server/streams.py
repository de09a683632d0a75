"""Answers that come in pieces, and what happens when nobody takes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from time import monotonic
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

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
            sender = _Sender(send, self._send_s)
            with suppress(ClientGone):
                await unless_gone(receive, self._write(sender), sender.watch())

    async def _write(self, sender: _Sender) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await sender.send(start)
        try:
            async with aclosing(self._events) as events:  # type: ignore[type-var]
                async for event in events:
                    await sender.send(_body_of(_event(event)))
        except Exception as error:
            await sender.send(_body_of(_event(error_object(told(error)))))
        else:
            if self._ends_with_done:
                await sender.send(_body_of(b"data: [DONE]\n\n"))
        await sender.send(_body_of(b"", more=False))


class _Sender:
    """Sends one message after the other. `watch()` ends when one is not taken within `send_s`, and
    sends a comment where nothing was sent for long."""

    def __init__(self, send: Send, send_s: float) -> None:
        self._send = send
        self._send_s = send_s
        self._turn = asyncio.Lock()
        self._since = self._last = monotonic()
        self._is_sending = False

    async def send(self, message: Message) -> None:
        """Waits as long as the client's buffers are full."""
        async with self._turn:
            self._since, self._is_sending = monotonic(), True
            await self._send(message)
            self._last, self._is_sending = monotonic(), False

    async def watch(self) -> None:
        """As long as it takes; ClientGone."""
        while True:
            await asyncio.sleep(min(1.0, self._send_s / 4))
            now = monotonic()
            if self._is_sending:
                if now - self._since > self._send_s:
                    raise ClientGone
            elif now - self._last > _PING_S:
                await asyncio.wait_for(self.send(_body_of(_PING)), self._send_s)


async def unless_gone(
    receive: Receive, work: Coroutine[Any, Any, T], *watches: Coroutine[Any, Any, None]
) -> T:
    """What `work` gives; ClientGone, and `work` cancelled, when the client goes first, or one of
    `watches` raises it. The body of the request was read before."""
    working = asyncio.create_task(work)
    watching = [asyncio.create_task(one) for one in (_gone(receive), *watches)]
    try:
        await asyncio.wait({working, *watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for one in (working, *watching):
            one.cancel()
        await asyncio.gather(working, *watching, return_exceptions=True)


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


def _event(value: Mapping[str, Any]) -> bytes:
    kind = value.get("type")
    name = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{name}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _body_of(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
