"""Conversations for template tests, drawn from a seed: roles, tools, documents, odd texts."""

from __future__ import annotations

import random
from typing import Any

_TEXTS = (
    "Hello!",
    "  spaces around  ",
    "two\nlines\n",
    "",
    "<think>\nhm\n</think>\n\nYes.",
    "a < b > c && d | e",
    "quotes \" and ' and \\ back",
    "Zürich 東京 🙂 \u200b",
    "{{ not_a_template }} {% if %}",
    "[INST] looks like an instruction [/INST]",
    "<tool_response>42</tool_response>",
    "/no_think please",
    "x" * 300,
)
_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'The weather "now" in a <place>.',
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "Zürich & more"},
                    "days": {"type": "integer", "enum": [1, 2, 3]},
                },
                "required": ["place"],
            },
            "return": {"type": "string", "description": "text"},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "The time.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


def conversation(seed: int) -> dict[str, Any]:
    """Keyword arguments for `ChatTemplate.render` and for transformers alike."""
    rng = random.Random(seed)
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(_TEXTS)})
    n_turns = rng.randrange(1, 5)
    for turn in range(n_turns):
        messages.append({"role": "user", "content": rng.choice(_TEXTS)})
        if rng.random() < 0.2:
            messages += _tool_call(rng)
        if turn < n_turns - 1 or rng.random() < 0.3:
            messages.append({"role": "assistant", "content": rng.choice(_TEXTS)})
            if rng.random() < 0.1:
                messages[-1]["reasoning_content"] = rng.choice(_TEXTS)
    if rng.random() < 0.1:  # not what templates expect
        rng.shuffle(messages)
    if rng.random() < 0.05:
        messages.append({"role": rng.choice(["tool", "critic", "developer"]), "content": "?"})
    if rng.random() < 0.05:
        messages[-1]["content"] = [{"type": "text", "text": rng.choice(_TEXTS)}]
    options: dict[str, Any] = {"messages": messages, "tools": None, "documents": None}
    if rng.random() < 0.3:
        options["tools"] = rng.sample(_TOOLS, rng.randrange(1, 3))
    if rng.random() < 0.1:
        options["documents"] = [{"title": "A", "text": rng.choice(_TEXTS)}]
    last = messages[-1]
    if last["role"] == "assistant" and last.get("content") and rng.random() < 0.5:
        options["continue_final_message"] = True
    else:
        options["add_generation_prompt"] = rng.random() < 0.7
    return options


def _tool_call(rng: random.Random) -> list[dict[str, Any]]:
    name = rng.choice(["weather", "now"])
    arguments = {"place": rng.choice(_TEXTS), "days": 2} if name == "weather" else {}
    call = {"id": "abcdef123", "type": "function"}
    return [
        {
            "role": "assistant",
            "content": rng.choice(["", "Let me see."]),
            "tool_calls": [{**call, "function": {"name": name, "arguments": arguments}}],
        },
        {
            "role": "tool",
            "name": name,
            "tool_call_id": "abcdef123",
            "content": rng.choice(["21", '{"t": 21}']),
        },
    ]
