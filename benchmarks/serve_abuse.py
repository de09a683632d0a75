"""What rude clients of `edgellm serve` do to the others, in times.

    python benchmarks/serve_abuse.py [MODEL] [--seconds 20]

Four good clients stream, alone and then beside one that does not read, 50 that never finish a
request and 200 that go away in the middle of a stream. Prints the 99th percentile of the good ones'
inter-token times, how long the slots of those who went are taken, and how long a stop takes, as
JSON. Wants an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

GOOD, LORIS, ABORTS = 4, 50, 200
_TAKEN = re.compile(rb"^edgellm_texts (\d+)", re.MULTILINE)


class Client:
    """Plain HTTP over a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    @asynccontextmanager
    async def sent(self, data: bytes) -> AsyncIterator[asyncio.StreamReader]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(data)
            await writer.drain()
            yield reader
        finally:
            writer.transport.abort()

    async def token_times(self, max_tokens: int) -> list[float]:
        """Between the tokens of one stream, in seconds."""
        times = []
        async with self.sent(chat(max_tokens)) as reader:
            while line := await reader.readline():
                if b'"content": "' in line and b'"role"' not in line:
                    times.append(time.perf_counter())
                if b"[DONE]" in line:
                    break
        return [after - before for before, after in itertools.pairwise(times)]

    async def n_taken(self) -> int:
        """Slots, as the server counts them."""
        async with self.sent(
            b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        ) as reader:
            found = _TAKEN.search(await reader.read())
        assert found
        return int(found.group(1))


def chat(max_tokens: int) -> bytes:
    """A request for a stream that does not end by itself."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "Tell me a story"}],
            "stream": True,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
    ).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + kind).encode() + body


async def good(client: Client, seconds: float) -> list[float]:
    """Inter-token times of one good client, stream after stream."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times += await client.token_times(200)
    return times


async def rude(client: Client, at: int, seconds: float, freed: list[float]) -> None:
    """Goes away in the middle of a stream; notes how long its slot stays taken beyond the rest."""
    await asyncio.sleep(seconds * at / ABORTS)
    async with client.sent(chat(400)) as reader:
        for _ in range(12):
            await reader.readline()
    if at % 20 == 0:
        left = time.perf_counter()
        while await client.n_taken() > GOOD + 1 + 1:
            await asyncio.sleep(0.005)
        freed.append(time.perf_counter() - left)


async def measure(port: int, seconds: float) -> dict[str, float]:
    """All of it, against a server at `port`."""
    client = Client(port)
    await client.token_times(20)
    each = await asyncio.gather(*(good(client, seconds) for _ in range(GOOD)))
    alone = list(chain.from_iterable(each))
    freed: list[float] = []
    async with asyncio.TaskGroup() as group:
        goods = [group.create_task(good(client, seconds)) for _ in range(GOOD)]
        _ = [
            *(group.create_task(hold(client, b"POST /v1/chat", seconds)) for _ in range(LORIS)),
            group.create_task(hold(client, chat(400), seconds)),
            *(group.create_task(rude(client, at, seconds, freed)) for at in range(ABORTS)),
        ]
    beside = list(chain.from_iterable(task.result() for task in goods))
    p99 = [statistics.quantiles(times, n=100)[98] for times in (alone, beside)]
    return {
        "p99_alone_ms": 1e3 * p99[0],
        "p99_beside_ms": 1e3 * p99[1],
        "ratio": p99[1] / p99[0],
        "slot_freed_max_ms": 1e3 * max(freed, default=0.0),
        "tokens_alone": len(alone),
        "tokens_beside": len(beside),
    }


async def hold(client: Client, data: bytes, seconds: float) -> None:
    """Sends that, and reads nothing."""
    async with client.sent(data):
        await asyncio.sleep(seconds)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    command = [sys.executable, "-m", "edgellm", "serve", options.model, "--port", "0", "--json"]
    server = await asyncio.create_subprocess_exec(
        *command, "--slots", "64", "--queue", "400", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    said = await server.stdout.readuntil(b"\n}\n")
    port = int(json.loads(said)["data"]["url"].rpartition(":")[2])
    found = await measure(port, options.seconds)
    async with Client(port).sent(chat(400)) as reader:
        await reader.readline()
        stopped = time.perf_counter()
        server.send_signal(signal.SIGTERM)
        await reader.read()
        await server.wait()
    found["drain_s"] = time.perf_counter() - stopped
    print(json.dumps({name: round(value, 3) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
