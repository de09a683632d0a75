"""Objects of OpenAI's API from the demo model, and from one that says what the test wants."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

import edgellm
from edgellm import ContextOverflowError, InvalidArgumentError, UnsupportedError
from edgellm.testing import FakeModel

QUESTION = [{"role": "user", "content": "How do I show the current date?"}]
STORY = "Once upon a time there was"


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def joined(chunks: list[Any]) -> str:
    return "".join(c["delta"].get("content", "") for one in chunks for c in one["choices"])


def test_the_answer_is_that_of_a_chat_whole_and_in_chunks(demo):
    with demo.chat() as chat:
        said = chat.send(QUESTION[0]["content"], max_tokens=40)
    whole = demo.create_chat_completion(QUESTION, max_tokens=40)
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": said.text, "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert whole["usage"]["prompt_tokens"] == said.stats.prompt_tokens
    assert whole["usage"]["completion_tokens"] == said.stats.generated_tokens
    asked = {"max_tokens": 40, "stream_options": {"include_usage": True}}
    chunks = list(demo.create_chat_completion(QUESTION, stream=True, **asked))
    assert joined(chunks) == said.text
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["finish_reason"] for one in chunks for c in one["choices"]][-1] == "stop"
    assert {one["id"] for one in chunks} == {chunks[0]["id"]}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == said.stats.generated_tokens


def test_asyncio_gives_the_same(demo):
    async def both() -> tuple[Any, list[Any]]:
        whole = await demo.acreate_chat_completion(QUESTION, max_tokens=40, n=2)
        stream = demo.astream_chat_completion(QUESTION, max_tokens=40, n=2)
        return whole, [chunk async for chunk in stream]

    expected = demo.create_chat_completion(QUESTION, max_tokens=40, n=2)
    whole, chunks = asyncio.run(both())
    assert whole["choices"] == expected["choices"]
    for at in range(2):
        mine = [{**c, "choices": [x for x in c["choices"] if x["index"] == at]} for c in chunks]
        assert joined(mine) == expected["choices"][at]["message"]["content"]


def test_several_answers_have_seeds_of_their_own(demo):
    drawn = {"max_tokens": 12, "temperature": 1.0}
    several = demo.create_chat_completion(QUESTION, n=3, seed=5, **drawn)["choices"]
    alone = [
        demo.create_chat_completion(QUESTION, seed=5 + at, **drawn)["choices"][0]["message"]
        for at in range(3)
    ]
    assert [one["message"] for one in several] == alone
    assert len({one["content"] for one in alone}) > 1
    free = {demo.create_completion(STORY, temperature=5.0)["choices"][0]["text"] for _ in range(3)}
    assert len(free) == 3  # without a seed


def test_log_probabilities_are_the_models_own(demo):
    whole = demo.create_chat_completion(QUESTION, max_tokens=8, logprobs=True, top_logprobs=3)
    content = whole["choices"][0]["logprobs"]["content"]
    assert (
        b"".join(bytes(one["bytes"]) for one in content).decode()
        == (whole["choices"][0]["message"]["content"])
    )
    prompt = demo.apply_chat_template(QUESTION)
    expected = demo.generate(prompt.ids, max_tokens=8, logprobs=3)
    assert [one["logprob"] for one in content] == expected.logprobs[: len(content)]
    assert len(content) == len(expected.token_ids) - 1  # without the end
    for one in content:
        assert len(one["top_logprobs"]) == 3
        assert one["top_logprobs"][0]["logprob"] == max(t["logprob"] for t in one["top_logprobs"])
    streamed = demo.create_chat_completion(QUESTION, stream=True, max_tokens=8, logprobs=True)
    seen = [
        one
        for chunk in streamed
        for choice in chunk["choices"]
        for one in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert [one["logprob"] for one in seen] == [one["logprob"] for one in content]


def test_echoed_log_probabilities_are_those_of_score(demo):
    ids = demo.tokenize(STORY)
    echoed = demo.create_completion(ids, echo=True, logprobs=2, max_tokens=0)
    found = echoed["choices"][0]["logprobs"]
    assert "".join(found["tokens"]) == echoed["choices"][0]["text"] == STORY
    assert found["token_logprobs"][0] is None
    (score,) = demo.score(ids[:3], [ids[3:]])
    assert found["token_logprobs"][3:] == score.logprobs
    for offset, name in zip(found["text_offset"], found["tokens"], strict=True):
        assert STORY[offset : offset + len(name)] == name
    for top in found["top_logprobs"][1:]:
        assert len(top) == 2
    more = demo.create_completion(ids, echo=True, logprobs=0, max_tokens=5)["choices"][0]
    assert more["text"] == STORY + demo.generate(STORY, max_tokens=5).text
    assert len(more["logprobs"]["token_logprobs"]) == len(ids) + 5


def test_completions_of_several_prompts_are_those_of_each(demo):
    prompts = [STORY, "The king", demo.tokenize("A dog")]
    whole = demo.create_completion(prompts, max_tokens=6, n=2)
    texts = [demo.generate(prompt, max_tokens=6).text for prompt in prompts for _ in range(2)]
    assert [choice["text"] for choice in whole["choices"]] == texts
    assert whole["usage"]["completion_tokens"] == 36
    streamed = [""] * 6
    for chunk in demo.create_completion(prompts, max_tokens=6, n=2, stream=True):
        for choice in chunk["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == texts


def test_a_response_format_is_followed(demo):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["a", "b"]}}}
    whole = demo.create_chat_completion(QUESTION, max_tokens=20, response_format=wanted)
    assert json.loads(whole["choices"][0]["message"]["content"]) in ("a", "b")


def test_messages_become_what_templates_want():
    model = FakeModel("ok", template="{{ messages | tojson }}")
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    model.create_chat_completion(
        [
            {
                "role": "developer",
                "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "kind"}],
            },
            {"role": "user", "content": "hi", "name": "Tom"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "1"},
        ],
        max_tokens=5,
    )
    call["function"] = {"name": "f", "arguments": {"a": 1}}
    assert json.loads(model.calls[0].prompt) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi", "name": "Tom"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"temperature": math.nan}, "temperature must be in"),
        ({"top_p": 0}, "top_p must be in"),
        ({"n": 0}, "n must be in 1..128"),
        ({"n": 1.5}, "n must be a whole number"),
        ({"max_tokens": 0}, "max_tokens must be in 1"),
        ({"stop": [""]}, "stop must hold texts"),
        ({"stop": ["x"] * 17}, "stop may hold 16"),
        ({"stop": 5}, "stop must be a text"),
        ({"logit_bias": {"x": 1}}, "logit_bias must map"),
        ({"logit_bias": {"1": 1000}}, "must be a number in -100..100"),
        ({"logit_bias": {"999999": 1}}, "logit_bias holds id 999999"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs must be in 0..20"),
        ({"stream_options": {"x": 1}}, "stream_options.unknown or unsupported here: x"),
        ({"best_of": 2}, "unknown or unsupported here: best_of"),
        ({"response_format": {"type": "xml"}}, "has type 'xml'"),
        ({"seed": 2**64}, "seed must be in"),
        ({"user": "me", "metadata": {}, "frobnicate": 1}, "unsupported here: frobnicate"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs must be an object"),
        ({"tools": [{}]}, r"tools\[0\] must be an object of type"),
        ({"tool_choice": "required"}, "tool_choice needs tools"),
    ],
)
def test_what_is_wrong_is_said_by_name(demo, asked, said):
    with pytest.raises(InvalidArgumentError, match=said):
        demo.create_chat_completion(QUESTION, **{"max_tokens": 4, **asked})


@pytest.mark.parametrize(
    ("messages", "kind", "said"),
    [
        ([], InvalidArgumentError, "messages must be"),
        ("hi", InvalidArgumentError, "messages must be"),
        (["hi"], InvalidArgumentError, r"messages\[0\] must be an object"),
        ([{"role": "king", "content": "x"}], InvalidArgumentError, r"messages\[0\].role"),
        ([{"role": "user"}], InvalidArgumentError, r"messages\[0\].content is missing"),
        ([{"role": "user", "content": 5}], InvalidArgumentError, "content must be a text"),
        ([{"role": "user", "content": "\ud800"}], InvalidArgumentError, "surrogate"),
        ([{"role": "user", "content": "x", "y": 1}], InvalidArgumentError, "here: y"),
        ([{"role": "tool", "content": "x"}], InvalidArgumentError, "tool_call_id is missing"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            UnsupportedError,
            "reads text only",
        ),
        ([{"role": "user", "content": "a " * 3000}], ContextOverflowError, "the conversation has"),
    ],
)
def test_wrong_messages_are_named(demo, messages, kind, said):
    with pytest.raises(kind, match=said):
        demo.create_chat_completion(messages, max_tokens=4)


@pytest.mark.parametrize(
    ("prompt", "asked", "said"),
    [
        ([], {}, "prompt is empty"),
        ("", {}, "prompt 0 has no tokens"),
        ([["a"]], {}, r"prompt\[0\] must be a text or token ids"),
        ("a", {"max_tokens": 0}, "max_tokens may be 0 with echo only"),
        ("a", {"suffix": "b"}, "suffix is not supported"),
        ("a", {"logprobs": 21}, "logprobs must be in 0..20"),
        ([99999], {}, r"ids are 0\.\.\d{4}$"),
    ],
)
def test_wrong_prompts_are_named(demo, prompt, asked, said):
    with pytest.raises(InvalidArgumentError, match=said):
        demo.create_completion(prompt, **asked)
