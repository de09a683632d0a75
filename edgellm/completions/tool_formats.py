"""How families of models write tool calls, told by what their chat templates write.

Each has a grammar (Lark, as llguidance reads it) that lets only valid calls through, and
`tool_reader.py` finds them in a running text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..errors import UnsupportedError
from ..response_format import MAX_BYTES, ResponseFormat
from ..schema_rules import enforceable
from . import xml_calls
from .fields import wrong
from .pythonic import call_rules
from .tools import Tool, ToolChoice
from .types import JsonObject

MAX_CALLS = 16  # in one answer: a model that repeats itself must come to an end


@dataclass(frozen=True)
class ToolFormat:
    """`opening` stands before the calls of an answer, `between` between two (empty: there is one
    at most), `closing` behind them. `marker`, the beginning of `opening`, shows that calls come;
    without one they are the whole answer, and `starts` is its first character.

    style "json": {"name": ..., KEY: {...}}; "named": the name, [ARGS], the arguments;
    "pythonic": name(argument=value); "xml": a tag for each argument."""

    name: str
    style: Literal["json", "named", "pythonic", "xml"]
    key: str = "arguments"
    marker: str = ""
    starts: str = ""
    opening: str = ""
    between: str = ""
    closing: str = ""

    def grammar(self, choice: ToolChoice, special_ids: Mapping[str, int]) -> ResponseFormat:
        """What an answer may be that may, or must, call. `special_ids`: tokens that no text
        spells. InvalidArgumentError, UnsupportedError: a schema that cannot be enforced."""
        spelled = _Speller(special_ids)
        most = MAX_CALLS if choice.parallel and self.between else 1
        more = f" ({spelled(self.between)} function){{0,{most - 1}}}" if most > 1 else ""
        lines = [
            *(self._only_calls(spelled) if choice.must else self._text_or_calls(spelled)),
            f"calls: function{more} {spelled(self.closing)}",
            "function: " + " | ".join(f"f{at}" for at in range(len(choice.callable))),
        ]
        for at, tool in enumerate(choice.callable):
            lines += self._function(f"f{at}", tool, spelled)
        text = "\n".join(lines) + "\n"
        if len(text.encode()) > MAX_BYTES:
            raise wrong(f"tools take {len(text.encode())} bytes as a grammar, at most {MAX_BYTES}")
        return ResponseFormat("grammar", text)

    def _only_calls(self, spelled: _Speller) -> list[str]:
        return [f"start: {spelled(self.opening)} calls"]

    def _text_or_calls(self, spelled: _Speller) -> list[str]:
        opening = spelled(self.opening)
        if not self.marker:
            text = f"/([ \\t\\n]*[^ \\t\\n\\{self.starts}](.|\\n)*)?/"
            return [f"start: TEXT | {opening} calls", f"TEXT: {text}"]
        if self.marker in spelled.ids:
            return [f"start: TEXT ({opening} calls)?", "TEXT: /(.|\\n)*/"]
        # Text may spell it token by token: from its end on, the grammar leads.
        return [
            "start: TEXT | head calls",
            f"head[lazy]: TEXT {json.dumps(self.opening)}",
            "TEXT: /(.|\\n)*/",
        ]

    def _function(self, rule: str, tool: Tool, spelled: _Speller) -> list[str]:
        schema: JsonObject = json.loads(tool.schema)
        if tool.strict:
            schema = enforceable(schema)
        style = _json_style(tool.strict)
        if self.style == "pythonic":
            return call_rules(rule, tool.name, schema, style)
        if self.style == "xml":
            return xml_calls.call_rules(rule, tool.name, schema, style, strict=tool.strict)
        arguments = "%json " + json.dumps({"x-guidance": style, **schema})
        if self.style == "named":
            return [f"{rule}: {spelled(tool.name + ARGS)} {arguments}"]
        head = json.dumps(f'{{"name": {json.dumps(tool.name)}, "{self.key}": ')
        return [f'{rule}: {head} {arguments} "}}"']


ARGS = "[ARGS]"
FORMATS = (
    ToolFormat(
        "hermes",
        "json",
        marker="<tool_call>",
        opening="<tool_call>\n",
        between="\n</tool_call>\n<tool_call>\n",
        closing="\n</tool_call>",
    ),
    ToolFormat(
        "qwen3-coder",
        "xml",
        marker="<tool_call>",
        opening="<tool_call>\n",
        between="\n</tool_call>\n<tool_call>\n",
        closing="\n</tool_call>",
    ),
    ToolFormat(
        "mistral",
        "json",
        marker="[TOOL_CALLS]",
        opening="[TOOL_CALLS][",
        between=", ",
        closing="]",
    ),
    ToolFormat(
        "mistral-named",
        "named",
        marker="[TOOL_CALLS]",
        opening="[TOOL_CALLS]",
        between="[TOOL_CALLS]",
    ),
    ToolFormat("llama3", "json", key="parameters", starts="{"),
    ToolFormat("pythonic", "pythonic", starts="[", opening="[", between=", ", closing="]"),
)
_BY_NAME = {form.name: form for form in FORMATS}


def format_of(source: str) -> ToolFormat:
    """Of the model whose chat template is `source`. UnsupportedError: it shows no tools to the
    model, or has calls written in a way that is not read here."""
    name = None
    if "tools" not in source:
        what = "shows no tools to the model"
    elif "[TOOL_CALLS]" in source:
        name = "mistral-named" if ARGS in source else "mistral"
    elif "[func_name1(" in source:
        name = "pythonic"
    elif "<function=" in source and "<parameter=" in source:
        name = "qwen3-coder"
    elif "<tool_call>" in source and "<function=" not in source:
        name = "hermes"
    elif "<|python_tag|>" in source or "ipython" in source:
        name = "llama3"
    else:
        what = "has tool calls written in a way that is not read"
    if name is not None:
        return _BY_NAME[name]
    raise UnsupportedError(
        f"the chat template {what}; read are those of Hermes and Qwen (<tool_call>), Llama 3 and "
        "Mistral ([TOOL_CALLS]); leave tools out, or ask for JSON with response_format",
        code="feature_unsupported",
    )


class _Speller:
    """Texts as terminals of a grammar, with special tokens in them by id."""

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        marks = {text for form in FORMATS for text in (form.marker, "</tool_call>", ARGS) if text}
        self.ids = {text: special_ids[text] for text in marks & special_ids.keys()}
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._pattern = re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")

    def __call__(self, text: str) -> str:
        parts = [part for part in self._pattern.split(text) if part]
        spelled = (f"<[{self.ids[p]}]>" if p in self.ids else json.dumps(p) for p in parts)
        return " ".join(spelled)


def _json_style(strict: bool) -> JsonObject:
    """As answers of response_format are written."""
    style: JsonObject = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
    }
    return style if strict else {**style, "lenient": True, "coerce_one_of": True}
