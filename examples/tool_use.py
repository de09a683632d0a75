"""The model calls functions of this program, and answers with what they returned.

`python examples/tool_use.py [MODEL] [QUESTION]`. Models that were not trained to call tools, as the
demo, are made to by a template and `tool_choice`: their calls are valid, not sensible. Needs
edgellm[grammar].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import edgellm
from edgellm.sanitize import visible

# For models whose own template shows no tools: calls as Hermes and Qwen write them.
HERMES = """{% if tools %}Tools: {{ tools | tojson }}
Call one as <tool_call>{"name": ..., "arguments": ...}</tool_call>
{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content or '' }}
{% endfor %}assistant: """


def add(a: int, b: int) -> int:
    return a + b


def spell(word: str) -> str:
    return "-".join(word)


FUNCTIONS: dict[str, Callable[..., Any]] = {"add": add, "spell": spell}
NUMBER = {"type": "integer", "minimum": 0, "maximum": 99}
PARAMETERS = {
    "add": {"a": NUMBER, "b": NUMBER},
    "spell": {"word": {"type": "string", "maxLength": 12}},
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            },
        },
    }
    for name, properties in PARAMETERS.items()
]


def first_answer(
    model: edgellm.Model, messages: list[dict[str, Any]]
) -> tuple[dict[str, Any], str | None]:
    """The message that may call, and the template that it came by: None for the model's own."""
    asked: dict[str, Any] = {"tools": TOOLS, "parallel_tool_calls": False, "max_tokens": 120}
    template = None
    try:
        answer = model.create_chat_completion(messages, **asked)
    except edgellm.UnsupportedError:
        template = HERMES
        answer = model.create_chat_completion(
            messages, template=template, tool_choice="required", **asked
        )
    return dict(answer["choices"][0]["message"]), template


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    question = sys.argv[2] if len(sys.argv) > 2 else "What is 17 and 4?"
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    with edgellm.load(name) as model:
        first, template = first_answer(model, messages)
        messages.append(first)
        for call in first.get("tool_calls", []):
            asked = call["function"]
            result = FUNCTIONS[asked["name"]](**json.loads(asked["arguments"]))
            print(visible(f"{asked['name']}({asked['arguments']}) = {result}"))
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}
            )
        last = model.create_chat_completion(messages, template=template, max_tokens=60)
    print(visible(last["choices"][0]["message"]["content"] or ""))


if __name__ == "__main__":
    main()
