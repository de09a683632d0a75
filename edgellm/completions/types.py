"""The objects of OpenAI's completions API, as plain dictionaries: JSON can hold them as they are.

Names and shapes are those of https://platform.openai.com/docs/api-reference; what edgellm never
says is left out.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length", "tool_calls"]


class FunctionCall(TypedDict):
    """`arguments` is JSON, an object."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """`id` is what the message with the tool's answer names; `index` stands in chunks only."""

    id: str
    type: Literal["function"]
    function: FunctionCall
    index: NotRequired[int]


class TopLogprob(TypedDict):
    """A token that could have stood there: its text, its UTF-8 bytes, its natural log probability
    under the model itself."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """The token that stands there, and the most likely ones, best first."""

    top_logprobs: list[TopLogprob]


class Logprobs(TypedDict):
    """Of every token of an answer, the one that ended it left out."""

    content: list[TokenLogprob]
    refusal: None


class Message(TypedDict):
    """`content` is None where there are only `tool_calls`."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[ToolCall]]


class Choice(TypedDict):
    """One of the `n` answers."""

    index: int
    message: Message
    logprobs: Logprobs | None
    finish_reason: FinishReason


class PromptDetails(TypedDict):
    """`cached_tokens` of the prompt were not computed: their KV was there."""

    cached_tokens: int


class Usage(TypedDict):
    """Tokens of all prompts and answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(TypedDict):
    """`system_fingerprint` names the weights: the same one, seed and request give the same text."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str


class Delta(TypedDict, total=False):
    """What a chunk adds to a message."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[ToolCall]


class ChunkChoice(TypedDict):
    """`finish_reason` is None in all chunks of an answer but the last."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(TypedDict):
    """`usage` stands in the last one, which has no choices, where `stream_options` ask for it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: NotRequired[Usage | None]


class TextLogprobs(TypedDict):
    """By token, those of an echoed prompt first; its first one has no probability. Alternatives
    that are spelled alike keep the best one's. `text_offset` counts characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(TypedDict):
    """Of prompt `index // n`."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(TypedDict):
    """Whole, or a chunk of a stream: both are of this shape."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    system_fingerprint: str
    usage: NotRequired[Usage | None]


JsonObject = dict[str, Any]
