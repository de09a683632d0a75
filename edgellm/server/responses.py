"""/v1/responses: OpenAI's newer API, as far as it is a chat completion by other names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from starlette.responses import JSONResponse, Response

from ..completions.chat_task import ChatTask
from ..completions.fields import Fields, wrong
from ..completions.messages import text_of
from .engine import Engine
from .streams import EventStream
from .texts import split

_SAME = ("temperature", "top_p", "top_k", "min_p", "seed", "parallel_tool_calls", "user")
_SAME_IGNORED = ("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")


async def response(engine: Engine, body: dict[str, Any], resources: AsyncExitStack) -> Response:
    """POST /v1/responses. Nothing is stored: `previous_response_id` is refused."""
    name, streams, rest = split(body)
    asked = _as_chat(rest)
    view = await resources.enter_async_context(engine.turn(name, 1))
    most = engine.settings.max_tokens
    task = await asyncio.to_thread(ChatTask, view, asked, most)
    if streams:
        events = _events(engine, task)
        held = resources.pop_all()
        return EventStream(events, held, engine.settings.send_s, ends_with_done=False)
    async for _ in engine.chunks(task):
        pass
    return JSONResponse(_response(task, _output(task)))


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    fields = Fields(body)
    messages = _messages(fields.take("input", (str, list, tuple), "a text or items"))
    if instructions := fields.text("instructions"):
        messages.insert(0, {"role": "system", "content": instructions})
    chat: dict[str, Any] = {"messages": messages}
    if (most := fields.count("max_output_tokens", least=1)) is not None:
        chat["max_tokens"] = most
    text = Fields(fields.mapping("text") or {}, "text.")
    if (form := text.mapping("format")) is not None:
        chat["response_format"] = _format(form)
    text.take("verbosity", str, "a text")
    text.end()
    tools = fields.items("tools")
    if tools:
        chat["tools"] = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
    chat["tool_choice"] = fields.take("tool_choice", (str, Mapping), "a text or an object")
    for key in _SAME:
        chat[key] = fields.take(key, object, "anything")
    for key in (*_SAME_IGNORED, "include", "reasoning", "truncation", "background"):
        fields.take(key, object, "anything")
    fields.end()
    return chat


def _format(form: Mapping[str, Any]) -> dict[str, Any]:
    """Of `text.format`: the schema stands beside its type here."""
    if form.get("type") != "json_schema":
        return dict(form)
    return {
        "type": "json_schema",
        "json_schema": {key: form[key] for key in ("schema", "strict") if key in form},
    }


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type") != "function":
        raise wrong(f'{where} must be an object of type "function"')
    function = {key: value for key, value in tool.items() if key != "type"}
    return {"type": "function", "function": function}


def _messages(given: Any) -> list[dict[str, Any]]:
    if given is None:
        raise wrong("input is missing")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[dict[str, Any]] = []
    for at, item in enumerate(given):
        where = f"input[{at}]"
        if not isinstance(item, Mapping):
            raise wrong(f"{where} must be an object, but is {item!r:.60}")
        kind = item.get("type", "message")
        if kind == "message":
            content = text_of(item.get("content"), where)
            messages.append({"role": item.get("role"), "content": content})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if messages and messages[-1].get("tool_calls"):
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            output = item.get("output")
            content = output if isinstance(output, str) else json.dumps(output)
            identity = item.get("call_id")
            messages.append({"role": "tool", "content": content, "tool_call_id": identity})
        else:
            raise wrong(f"{where} is of type {kind!r:.60}, which is not supported here")
    return messages


def _output(task: ChatTask) -> list[dict[str, Any]]:
    (choice,) = task.result()["choices"]
    message = choice["message"]
    status = "incomplete" if choice["finish_reason"] == "length" else "completed"
    items: list[dict[str, Any]] = []
    if message["content"] is not None:
        items.append(_message(task, message["content"], status))
    for at, call in enumerate(message.get("tool_calls", [])):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{task.id}_{at}",
                "call_id": call["id"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
                "status": "completed",
            }
        )
    return items


def _message(task: ChatTask, text: str, status: str) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_{task.id}",
        "role": "assistant",
        "status": status,
        "content": [_part(text)] if text or status != "in_progress" else [],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(task: ChatTask, output: list[dict[str, Any]] | None) -> dict[str, Any]:
    """`output` None: it goes on."""
    is_cut = output is not None and any(item["status"] == "incomplete" for item in output)
    status = "in_progress" if output is None else "incomplete" if is_cut else "completed"
    usage = task.usage
    return {
        "id": f"resp_{task.id}",
        "object": "response",
        "created_at": task.created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "instructions": None,
        "metadata": {},
        "model": task.model,
        "output": output or [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None
        if output is None
        else {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


async def _events(engine: Engine, task: ChatTask) -> AsyncIterator[dict[str, Any]]:
    """Numbered, as clients want them."""
    number = 0
    async for event in _plain_events(engine, task):
        yield {**event, "sequence_number": number}
        number += 1


async def _plain_events(engine: Engine, task: ChatTask) -> AsyncIterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response(task, None)}
    where = {"item_id": f"msg_{task.id}", "output_index": 0, "content_index": 0}
    text = ""
    async for chunk in engine.chunks(task):
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content", "")
            if piece and not text:
                item = _message(task, "", "in_progress")
                yield {"type": "response.output_item.added", "output_index": 0, "item": item}
                yield {"type": "response.content_part.added", **where, "part": _part("")}
            if piece:
                text += piece
                yield {
                    "type": "response.output_text.delta",
                    **where,
                    "delta": piece,
                    "logprobs": [],
                }
    output = _output(task)
    if text:
        yield {"type": "response.output_text.done", **where, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": _part(text)}
    for at, item in enumerate(output):
        if item["type"] == "function_call":
            yield {"type": "response.output_item.added", "output_index": at, "item": item}
            told = {"item_id": item["id"], "output_index": at, "name": item["name"]}
            done = {"type": "response.function_call_arguments.done", **told}
            yield {**done, "arguments": item["arguments"]}
        if item["type"] == "function_call" or text:
            yield {"type": "response.output_item.done", "output_index": at, "item": item}
    whole = _response(task, output)
    yield {"type": f"response.{whole['status']}", "response": whole}
