"""asyncio: the same texts as without, while the event loop goes on."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

import edgellm
from edgellm.errors import InvalidArgumentError

T = TypeVar("T")
PROMPTS = ("Once upon a time", "The king", "A small dog", "One day Lily")
GREEDY: dict[str, Any] = {"max_tokens": 24, "stop_ids": []}
ENDLESS: dict[str, Any] = {"max_tokens": 400, "stop_ids": []}


@pytest.fixture(scope="module")
def model() -> Iterator[edgellm.Model]:
    with edgellm.load("demo", prefix_cache=0) as model:
        yield model


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 60))


def assert_threads_end() -> None:
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("edgellm-stream"):
            thread.join(30)
            assert not thread.is_alive()


def test_tokens_and_text_are_those_of_the_plain_stream(model):
    expected = model.generate(PROMPTS[0], **GREEDY)

    async def both() -> tuple[list[int], edgellm.Generation, edgellm.Stats | None]:
        stream = model.astream(PROMPTS[0], **GREEDY)
        ids = [token.id async for token in stream]
        return ids, await model.agenerate(PROMPTS[0], **GREEDY), stream.stats

    ids, text, stats = run(both())
    assert ids == expected.token_ids
    assert (text.text, text.token_ids, text.finish_reason) == (expected.text, ids, "length")
    assert stats is not None
    assert stats.generated_tokens == len(ids)
    assert_threads_end()


def test_several_tasks_have_the_texts_that_they_would_have_alone(model):
    expected = [model.generate(prompt, **GREEDY).token_ids for prompt in PROMPTS]

    async def together() -> list[list[int]]:
        texts = await asyncio.gather(*(model.agenerate(p, **GREEDY) for p in PROMPTS))
        return [text.token_ids for text in texts]

    assert run(together()) == expected


def test_the_loop_goes_on_meanwhile(model):
    async def count() -> int:
        n_turns = 0
        text = asyncio.create_task(model.agenerate(PROMPTS[0] * 40, **GREEDY))
        while not text.done():
            n_turns += 1
            await asyncio.sleep(0)
        return n_turns

    assert run(count()) > 10


def test_a_cancelled_task_cancels_its_text_and_the_model_goes_on(model):
    expected = model.generate(PROMPTS[1], **GREEDY).token_ids

    async def cancel() -> list[int]:
        stream = model.astream(PROMPTS[0], **ENDLESS)
        first = asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                first.set()

        reader = asyncio.create_task(read())
        await first.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        text = await model.agenerate(PROMPTS[1], **GREEDY)
        assert stream.stats is not None
        assert 0 < stream.stats.generated_tokens < ENDLESS["max_tokens"]
        return text.token_ids

    assert run(cancel()) == expected
    assert_threads_end()


@pytest.mark.parametrize("n_before", [0, 1, 3])
def test_leaving_the_block_frees_the_sequence(model, n_before):
    async def leave() -> None:
        async with model.astream(PROMPTS[0], **ENDLESS) as stream:
            for _ in range(n_before):
                await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    run(leave())
    assert_threads_end()


def test_cancel_ends_the_text_from_another_task(model):
    async def cancel() -> edgellm.Generation:
        stream = model.astream(PROMPTS[0], **ENDLESS)
        await anext(stream)
        stream.cancel()
        return await stream.result()

    text = run(cancel())
    assert text.finish_reason == "cancelled"
    assert 1 <= len(text.token_ids) < ENDLESS["max_tokens"]


def test_what_is_wrong_is_raised_by_the_first_await(model):
    async def wrong() -> None:
        stream = model.astream(PROMPTS[0], max_tokens=4, temperature=-1)
        with pytest.raises(InvalidArgumentError, match="temperature"):
            await anext(stream)
        await stream.aclose()
        with pytest.raises(InvalidArgumentError, match="max_tokens"):
            await model.agenerate(PROMPTS[0], max_tokens=0)

    run(wrong())
    assert_threads_end()


def test_chats_have_it_too(model):
    with model.chat() as chat:
        expected = chat.send("Tell me a story.", max_tokens=16).text

    async def talk() -> str:
        with model.chat() as chat:
            parts = [token.text async for token in chat.astream("Tell me a story.", max_tokens=16)]
            assert len(chat.turns) == 1
            reply = await chat.asend("And then?", max_tokens=4)
            assert len(chat.turns) == 2
            assert reply.token_ids
            return "".join(parts)

    assert run(talk()) == expected
