"""FakeModel has the surface of Model, and behaves like one."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys

import pytest

import edgellm
from edgellm.testing import FakeModel


def public(kind: type) -> dict[str, object]:
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


def test_its_signatures_are_those_of_model():
    model, fake = public(edgellm.Model), public(FakeModel)
    assert set(model) == set(fake)
    assert len(model) > 20
    for name, member in model.items():
        if callable(member):
            assert inspect.signature(fake[name]) == inspect.signature(member), name


def test_everything_works_without_the_native_module(tmp_path):
    code = f"""
import asyncio, sys
from edgellm.testing import FakeModel
import edgellm
with FakeModel("Hello there!") as m:
    chat = m.chat("be kind")
    chat.send("Hi")
    chat.stream_regenerate().result(); chat.continue_(max_tokens=3); chat.edit(0, "Ho")
    chat.save({str(tmp_path / "saved")!r})
    again = m.restore({str(tmp_path / "saved")!r})
    assert again.messages == chat.messages and again.messages[-1]["content"] == "Hello there!"
    m.generate("a", max_tokens=5), m.generate_n("a", 2, max_tokens=5)
    m.generate_batch(["a", "b"], max_tokens=5), m.score("a", ["b"]), m.embed("a"), m.logits([1])
    m.info(), m.kv_figures(), m.trim(), m.detokenize(m.tokenize("a")), m.token_bytes(256)
    m.create_chat_completion([{{"role": "user", "content": "Hi"}}], n=2)
    m.create_completion("a", echo=True, logprobs=1)
    asyncio.run(m.agenerate("a", max_tokens=5))
    asyncio.run(m.acreate_chat_completion([{{"role": "user", "content": "Hi"}}], n=2))
    m.apply_chat_template([{{"role": "user", "content": "Hi"}}])
    try:
        m.load_adapter("x")
    except edgellm.UnsupportedError:
        pass
assert not [n for n in sys.modules if n.startswith("edgellm._native") and "types" not in n]
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_replies_are_chosen():
    assert FakeModel("x").generate("a", max_tokens=9).text == "x"
    in_turn = FakeModel(["one", "two"])
    assert [in_turn.generate("a", max_tokens=9).text for _ in range(3)] == ["one", "two", "two"]
    by_key = FakeModel({"sky": "blue", "sun": "yellow"})
    assert by_key.generate("the sun is", max_tokens=9).text == "yellow"
    made = FakeModel(lambda prompt: prompt.upper())
    assert made.generate("abc", max_tokens=9).text == "ABC"
    assert [(call.prompt, call.reply) for call in made.calls] == [("abc", "ABC")]


def test_limits_and_stops_are_the_real_ones():
    model = FakeModel("Grüße an alle. Ende", n_ctx=64)
    cut = model.generate("a", max_tokens=3)
    assert (cut.text, cut.finish_reason) == ("Gr\ufffd", "length")
    stopped = model.generate("a", max_tokens=60, stop=". ")
    assert (stopped.text, stopped.finish_reason) == ("Grüße an alle", "stop")
    assert (
        model.generate("a", max_tokens=60).stats.generated_tokens
        == len("Grüße an alle. Ende".encode()) + 1
    )
    with pytest.raises(edgellm.ContextOverflowError):
        model.generate("a" * 60, max_tokens=10)
    with pytest.raises(edgellm.InvalidArgumentError, match="temperature"):
        model.generate("a", max_tokens=1, temperature=-1)
    stream = model.stream("a", max_tokens=60)
    next(stream)
    stream.cancel()
    assert stream.result().finish_reason == "cancelled"


def test_a_chat_keeps_its_transcript_and_a_batch_its_order():
    model = FakeModel(["first", "second", "third"])
    with model.chat("You count.") as chat:
        assert chat.send("one").text == "first"
        assert chat.send("two").stats.reused_tokens > 0
        assert [message["role"] for message in chat.messages] == [
            *("system", "user", "assistant", "user", "assistant")
        ]
    echo = FakeModel(lambda prompt: f"<{prompt}>")
    texts = [one.text for one in echo.generate_batch(["a", "bb", "c"], max_tokens=9, at_once=2)]
    assert texts == ["<a>", "<bb>", "<c>"]


def test_asyncio_streams_and_cancels():
    model = FakeModel("x" * 500)

    async def some() -> tuple[str, str | None]:
        stream = model.astream("a", max_tokens=600)
        text = ""
        async for token in stream:
            text += token.text
            if len(text) == 5:
                stream.cancel()
        return text, stream.finish_reason

    text, reason = asyncio.run(some())
    assert reason == "cancelled"
    assert 5 <= len(text) < 500
