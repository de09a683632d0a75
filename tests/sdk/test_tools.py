"""Tool calls: in the format of the model's family, only valid ones, read back as OpenAI does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import edgellm
from edgellm import InvalidArgumentError, ToolCallError, UnsupportedError
from edgellm.completions.tool_formats import format_of
from edgellm.testing import FakeModel

ASKED = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "unit": {"$ref": "#/$defs/unit"},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
    "$defs": {"unit": {"enum": ["C", "F"]}},
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name: str, schema: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **more}}


TOOLS = [tool("weather", CITY, description="What it is like"), tool("now", NOTHING)]
SCHEMAS = {"weather": CITY, "now": NOTHING}
# What templates of the families write, as far as formats are told by it.
TEMPLATES = {
    "hermes": "{{ tools }} <tool_call>\n{# #}",
    "mistral": "{{ tools }} [TOOL_CALLS][",
    "mistral-named": "{{ tools }} [TOOL_CALLS]name[ARGS]",
    "llama3": "{{ tools }} Environment: ipython\n",
    "pythonic": "{{ tools }} [func_name1(params_name1=params_value1)]",
    "qwen3-coder": "{{ tools }} <tool_call>\n<function=name>\n<parameter=key>\n",
}
PRINTED = "{% for m in messages %}{{ m.content }}{% endfor %}"
CALLS = {
    "hermes": '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "mistral": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}, '
    '{"name": "now", "arguments": {}}]',
    "mistral-named": '[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]now[ARGS]{}',
    "llama3": '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}; '
    '{"name": "now", "parameters": {}}',
    "pythonic": "[weather(city='Oslo'), now()]",
    "qwen3-coder": "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n"
    "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
}


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def said(call: dict[str, Any]) -> tuple[str, Any]:
    assert call["type"] == "function"
    assert len(call["id"]) == 9
    return call["function"]["name"], json.loads(call["function"]["arguments"])


@pytest.mark.parametrize("family", TEMPLATES)
def test_calls_of_every_family_are_read_whole_and_in_chunks(family):
    model = FakeModel(CALLS[family], template=TEMPLATES[family] + PRINTED)
    expected = [("weather", {"city": "Oslo"}), ("now", {})]
    (choice,) = model.create_chat_completion(ASKED, tools=TOOLS)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert [said(call) for call in choice["message"]["tool_calls"]] == expected
    chunks = list(model.create_chat_completion(ASKED, tools=TOOLS, stream=True))
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == ""
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert [said(call) for call in calls] == expected
    assert [call["index"] for call in calls] == [0, 1]


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("parallel", [True, False])
def test_grammars_let_only_valid_calls_through(demo, family, parallel):
    template = TEMPLATES[family] + "{% for m in messages %}{{ m.content }}{% endfor %} Answer: "
    for seed in range(3):
        (choice,) = demo.create_chat_completion(
            ASKED,
            template=template,
            tools=TOOLS,
            tool_choice="required",
            parallel_tool_calls=parallel,
            temperature=1.2,
            seed=seed,
            max_tokens=200,
        )["choices"]
        if choice["finish_reason"] == "length" and parallel:
            continue  # one call after another
        calls = [said(call) for call in choice["message"]["tool_calls"]]
        assert len(calls) == 1 or parallel
        for name, arguments in calls:
            jsonschema.validate(arguments, SCHEMAS[name])


def test_one_function_can_be_asked_for_and_none(demo):
    asked = {"template": TEMPLATES["hermes"] + PRINTED, "tools": TOOLS, "max_tokens": 120}
    named = {"type": "function", "function": {"name": "now"}}
    whole = demo.create_chat_completion(
        ASKED, tool_choice=named, parallel_tool_calls=False, **asked
    )
    assert [said(call) for call in whole["choices"][0]["message"]["tool_calls"]] == [("now", {})]
    free = demo.create_chat_completion(ASKED, tool_choice="none", **{**asked, "max_tokens": 9})
    assert "tool_calls" not in free["choices"][0]["message"]


@pytest.mark.parametrize("family", ["hermes", "mistral", "qwen3-coder"])
def test_text_may_come_before_a_call_and_markers_in_parts(family):
    model = FakeModel("Let me see. " + CALLS[family], template=TEMPLATES[family] + PRINTED)
    chunks = list(model.create_chat_completion(ASKED, tools=TOOLS, stream=True))
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert text.strip() == "Let me see."
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("family", TEMPLATES)
def test_text_without_a_call_is_text(demo, family):
    text = "a < b, <tool, and [TOOL too; f(x)"
    model = FakeModel(text, template=TEMPLATES[family] + PRINTED)
    (choice,) = model.create_chat_completion(ASKED, tools=TOOLS)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
    asked = {"template": TEMPLATES[family] + PRINTED, "max_tokens": 16}
    with_tools = demo.create_chat_completion(ASKED, tools=TOOLS, **asked)["choices"][0]
    prompt = demo.apply_chat_template(ASKED, template=asked["template"], tools=list(TOOLS))
    free = demo.generate(prompt.ids, max_tokens=16)
    assert with_tools["message"]["content"] == free.text


@pytest.mark.parametrize(
    "reply",
    [
        '<tool_call>\n{"name": "weather", "argum',
        '<tool_call>\n{"name": "rm", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "now", "arguments": [1]}\n</tool_call>',
        "<tool_call>\n</tool_call>",
        '<tool_call>\n{"name": ' + "[" * 100_000,
    ],
)
def test_calls_that_are_none_are_errors_and_cut_off_ones_text(reply):
    model = FakeModel(reply, template=TEMPLATES["hermes"] + PRINTED, n_ctx=200_000)
    with pytest.raises(ToolCallError) as caught:
        model.create_chat_completion(ASKED, tools=TOOLS)
    assert caught.value.code == "tool_call_invalid"
    cut = model.create_chat_completion(ASKED, tools=TOOLS, max_tokens=15)["choices"][0]
    assert cut["finish_reason"] == "length"
    assert cut["message"]["content"] == reply[:15]


def test_pythonic_values_are_read():
    reply = """[weather(city="x", list=[1, -2.5, True, null], map={"a": None}, t=(1,))]"""
    model = FakeModel(reply, template=TEMPLATES["pythonic"] + PRINTED)
    (choice,) = model.create_chat_completion(ASKED, tools=TOOLS)["choices"]
    assert said(choice["message"]["tool_calls"][0])[1] == {
        "city": "x",
        "list": [1, -2.5, True, None],
        "map": {"a": None},
        "t": [1],
    }
    for bad in ("[weather(1)]", "[weather(**x)]", "[__import__('os')]", "[weather(a=f())]", "[x]"):
        broken = FakeModel(bad, template=TEMPLATES["pythonic"] + PRINTED)
        with pytest.raises(ToolCallError):
            broken.create_chat_completion(ASKED, tools=TOOLS)


SAVE = {
    "type": "object",
    "properties": {
        "path": {"type": "string", "minLength": 1, "maxLength": 12},
        "mode": {"$ref": "#/$defs/mode"},
        "lines": {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
        "size": {"type": ["integer", "null"]},
    },
    "required": ["path", "mode"],
    "additionalProperties": False,
    "$defs": {"mode": {"enum": ["a", "w"]}},
}


def tagged(*arguments: tuple[str, str], name: str = "save") -> str:
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments)
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def test_arguments_in_tags_are_texts_or_json():
    template = TEMPLATES["qwen3-coder"] + PRINTED
    text = 'two lines\n  of "text" </function>\n{1} </parameter>'
    reply = tagged(("path", text), ("mode", "w"), ("lines", "[1, 2]"), ("size", "null"), ("x", "y"))
    (choice,) = FakeModel(reply, template=template).create_chat_completion(
        ASKED, tools=[tool("save", SAVE)]
    )["choices"]
    assert said(choice["message"]["tool_calls"][0])[1] == {
        "path": text,
        "mode": "w",
        "lines": [1, 2],
        "size": None,
        "x": "y",
    }
    tight = "<tool_call><function=save><parameter=path>a</parameter><parameter=mode>\n</parameter>"
    (choice,) = FakeModel(tight + "</function>", template=template).create_chat_completion(
        ASKED, tools=[tool("save", SAVE)]
    )["choices"]
    assert said(choice["message"]["tool_calls"][0])[1] == {"path": "a", "mode": ""}
    for bad in (
        tagged(("lines", "one")),
        tagged(("path", "a"), ("path", "b")),
        tagged(name="other"),
        tagged(("path", "a")).replace("</parameter>", ""),
        "<tool_call>\nsave()\n</tool_call>",
        tagged(("lines", "[" * 100_000)),
    ):
        broken = FakeModel(bad, template=template, n_ctx=200_000)
        with pytest.raises(ToolCallError):
            broken.create_chat_completion(ASKED, tools=[tool("save", SAVE)])


def test_arguments_in_tags_keep_to_their_schemas(demo):
    asked = {"template": TEMPLATES["qwen3-coder"] + PRINTED, "tool_choice": "required"}
    for seed in range(4):
        (choice,) = demo.create_chat_completion(
            ASKED,
            tools=[tool("save", SAVE)],
            parallel_tool_calls=False,
            temperature=1.3,
            seed=seed,
            max_tokens=200,
            **asked,
        )["choices"]
        assert choice["finish_reason"] == "tool_calls"
        jsonschema.validate(said(choice["message"]["tool_calls"][0])[1], SAVE)
    for schema, told in (
        ({"type": "string", "pattern": "a+"}, "pattern"),
        ({"enum": ["</parameter>"]}, "ends every argument"),
    ):
        parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
        strict = tool("save", {**parameters, "additionalProperties": False}, strict=True)
        with pytest.raises(UnsupportedError, match=told):
            demo.create_chat_completion(ASKED, tools=[strict], max_tokens=5, **asked)
    parameters = {"type": "object", "properties": {"a>b": {"type": "string"}}}
    with pytest.raises(UnsupportedError, match="fits in no tag"):
        demo.create_chat_completion(ASKED, tools=[tool("save", parameters)], max_tokens=5, **asked)


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        ([tool("a b", NOTHING)], "auto", r"tools\[0\].function.name must be"),
        ([tool("a", NOTHING), tool("a", NOTHING)], "auto", "names of their own"),
        ([tool("a", {"type": "string"})], "auto", "must be of type object"),
        ([tool("a", NOTHING)], {"type": "function", "function": {"name": "b"}}, "names 'b'"),
        ([tool("a", NOTHING)], "sometimes", "tool_choice must be"),
        ([tool("a", NOTHING, strict="x")], "auto", "strict must be true or false"),
        ([tool(f"t{at}", NOTHING) for at in range(129)], "auto", "may hold 128"),
        ({"a": 1}, "auto", "tools must be an array"),
    ],
)
def test_wrong_tools_are_named(tools, choice, message):
    model = FakeModel(template=TEMPLATES["hermes"] + PRINTED)
    with pytest.raises(InvalidArgumentError, match=message):
        model.create_chat_completion(ASKED, tools=tools, tool_choice=choice)


def test_what_cannot_be_enforced_is_refused_where_strict(demo):
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    asked = {"template": TEMPLATES["hermes"] + PRINTED, "max_tokens": 4}
    demo.create_chat_completion(ASKED, tools=[tool("a", schema)], **asked)
    with pytest.raises(UnsupportedError, match="uniqueItems"):
        demo.create_chat_completion(ASKED, tools=[tool("a", schema, strict=True)], **asked)
    with pytest.raises(UnsupportedError, match="shows no tools"):
        demo.create_chat_completion(ASKED, tools=TOOLS)
    with pytest.raises(InvalidArgumentError, match="exclude each other"):
        demo.create_chat_completion(
            ASKED, tools=TOOLS, response_format={"type": "json_object"}, **asked
        )


def test_real_templates_tell_their_family(shared_data: Path):
    expected = {
        "Qwen-Qwen2.5-7B-Instruct": "hermes",
        "Qwen-Qwen3-0.6B": "hermes",
        "nousresearch_hermes3_tool_use": "hermes",
        "meta-llama-Llama-3.1-8B-Instruct": "llama3",
        "meta-llama-Llama-3.2-3B-Instruct": "llama3",
        "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    }
    for name, family in expected.items():
        path = shared_data / "chat_templates" / "models" / f"{name}.jinja"
        assert format_of(path.read_text(encoding="utf-8")).name == family, name
    refused = shared_data / "chat_templates" / "models" / "google-gemma-2-2b-it.jinja"
    with pytest.raises(UnsupportedError, match="shows no tools"):
        format_of(refused.read_text(encoding="utf-8"))
