"""The openai package, as its users call it, against the demo model and a fake one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest

import edgellm
from command_line import data_of
from command_line import edgellm as run_edgellm
from edgellm.testing import FakeModel
from server.serving import Running, serving

openai = pytest.importorskip("openai", reason="openai is not installed: run `make test`")
QUESTION = "How do I show the current date?"
ASKED = [{"role": "user", "content": QUESTION}]
STORY = "Once upon a time there was"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(models=("demo",)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def test_greedy_text_is_the_same_from_every_surface(client, demo, tmp_path):
    def cli(*arguments: str) -> dict[str, object]:
        return data_of(run_edgellm(*arguments, "-n", "24", "--json", cwd=tmp_path), "run")

    expected = demo.generate(STORY, max_tokens=24)
    asked = {"model": "demo", "prompt": STORY, "max_tokens": 24}
    texts = {
        "sdk": demo.create_completion(STORY, max_tokens=24)["choices"][0]["text"],
        "batch": demo.generate_batch([STORY, "The king"], max_tokens=24)[0].text,
        "asyncio": asyncio.run(demo.agenerate(STORY, max_tokens=24)).text,
        "server": client.completions.create(**asked).choices[0].text,
        "stream": "".join(
            one.choices[0].text for one in client.completions.create(**asked, stream=True)
        ),
        "command line": cli("run", "demo", STORY)["text"],
    }
    assert set(texts.values()) == {expected.text}, texts
    with demo.chat() as chat:
        said = chat.send(QUESTION, max_tokens=24).text
    whole = client.chat.completions.create(model="demo", messages=ASKED, max_tokens=24)
    answer = client.responses.create(model="demo", input=QUESTION, max_output_tokens=24)
    assert cli("run", "demo", QUESTION, "--chat")["text"] == said
    assert whole.choices[0].message.content == answer.output_text == said


def test_chats_whole_and_streamed(client, demo):
    expected = demo.create_chat_completion(ASKED, max_tokens=20, logprobs=True, top_logprobs=2)
    asked = {"model": "demo", "messages": ASKED, "max_tokens": 20}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.content == expected["choices"][0]["message"]["content"]
    assert whole.usage.total_tokens == expected["usage"]["total_tokens"]
    assert whole.choices[0].logprobs.model_dump() == expected["choices"][0]["logprobs"]
    stream = client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_structured_output_and_seeds(client):
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    form = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {**schema, "additionalProperties": False}},
    }
    asked = {"model": "demo", "messages": ASKED, "max_tokens": 30}
    answer = client.chat.completions.create(**asked, response_format=form)
    assert json.loads(answer.choices[0].message.content)["a"] in (1, 2)
    drawn = [
        client.chat.completions.create(**asked, temperature=1.0, seed=7, n=2) for _ in range(2)
    ]
    texts = [[choice.message.content for choice in one.choices] for one in drawn]
    assert texts[0] == texts[1]
    assert drawn[0].system_fingerprint == drawn[1].system_fingerprint


def test_embeddings_and_models(client, demo):
    found = client.embeddings.create(model="demo", input=["a text", "another"])
    vectors = np.array([one.embedding for one in found.data], np.float32)
    assert np.array_equal(vectors, demo.embed(["a text", "another"]))
    assert [model.id for model in client.models.list()] == ["demo"]


def test_loglikelihoods_are_those_of_the_models_own_class(client, demo):
    """As lm-evaluation-harness asks for them: ids, echo, logprobs=1."""
    for prompt, more in (("The sky is", " blue"), ("Once upon a", " time there was")):
        (score,) = demo.score(prompt, [more])
        ids = demo.tokenize(prompt) + score.token_ids
        answer = client.completions.create(
            model="demo", prompt=[ids], max_tokens=1, logprobs=1, echo=True, temperature=0
        )
        logprobs = answer.choices[0].logprobs
        n_prompt = len(ids) - len(score.token_ids)
        assert logprobs.token_logprobs[n_prompt : len(ids)] == score.logprobs
        names = zip(logprobs.tokens, logprobs.top_logprobs, strict=True)
        is_greedy = all(name in top for name, top in list(names)[n_prompt : len(ids)])
        assert is_greedy == score.is_greedy


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=ASKED)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "a " * 3000}]
        )
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="demo", messages=ASKED, temperature=-1)
    with pytest.raises(openai.BadRequestError, match="shows no tools"):
        client.chat.completions.create(model="demo", messages=ASKED, tools=[TOOL])


def test_tool_calls_go_back_and_forth():
    template = (
        "{{ tools }}<tool_call>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    model = FakeModel({"tool: 21": "It is warm.", "Oslo?": call}, template=template)
    with (
        serving(model) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client,
    ):
        messages = [{"role": "user", "content": "Oslo?"}]
        asked = {"model": "fake", "tools": [TOOL]}
        said = client.chat.completions.create(messages=messages, **asked).choices[0]
        assert said.finish_reason == "tool_calls"
        (found,) = said.message.tool_calls
        assert json.loads(found.function.arguments) == {"city": "Oslo"}
        messages += [
            said.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": found.id, "content": "21"},
        ]
        assert (
            client.chat.completions.create(messages=messages, **asked).choices[0].message.content
            == "It is warm."
        )
        flat = {"type": "function", **TOOL["function"]}
        answer = client.responses.create(model="fake", input="Oslo?", tools=[flat])
        assert [item.type for item in answer.output] == ["function_call"]
        again = client.responses.create(
            model="fake",
            tools=[flat],
            input=[
                {"role": "user", "content": "Oslo?"},
                answer.output[0].model_dump(),
                {
                    "type": "function_call_output",
                    "call_id": answer.output[0].call_id,
                    "output": "21",
                },
            ],
        )
        assert again.output_text == "It is warm."
        events = list(client.responses.create(model="fake", input="tool: 21", stream=True))
        deltas = [one.delta for one in events if one.type == "response.output_text.delta"]
        assert "".join(deltas) == "It is warm."
        assert events[-1].response.output_text == "It is warm."


def test_asyncio_clients_at_once(server, demo):
    prompts = ["The king", "A dog", "One day", "The sun"]
    expected = [demo.generate(prompt, max_tokens=12).text for prompt in prompts]

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            answers = await asyncio.gather(
                *(
                    client.completions.create(model="demo", prompt=prompt, max_tokens=12)
                    for prompt in prompts
                )
            )
        return [answer.choices[0].text for answer in answers]

    assert asyncio.run(all_of_them()) == expected
