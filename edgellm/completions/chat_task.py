"""A chat completion: from messages and fields of OpenAI's API to texts, and back to its objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..chat_format import ChatPrompt
from ..errors import ContextOverflowError
from ..options import GenerateArguments, as_stops
from ..results import FinishReason, Stats, Token
from .answer import Answer, TokenBytes
from .fields import Fields, answers, generate_arguments, includes_usage, wrong
from .messages import take_messages
from .task import Task
from .tool_formats import FORMATS, ToolFormat, format_of
from .tool_reader import ToolReader
from .tools import ToolChoice, take_tools
from .types import ChatCompletion, ChatCompletionChunk, Choice, ChunkChoice, Message

if TYPE_CHECKING:
    from ..stream import TokenStream

_MAX_TOP_LOGPROBS = 20


class ChatModel(Protocol):
    """What a task asks of a model."""

    name: str
    fingerprint: str
    n_ctx: int

    def chat_prompt(self, messages: list[dict[str, Any]], **options: Any) -> ChatPrompt:
        """The options are those of `ChatTemplate.pieces()`."""

    def start(self, ids: list[int], arguments: GenerateArguments) -> TokenStream:
        """One text."""

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text."""


@dataclass(frozen=True)
class _Wish:
    """A request, read."""

    messages: list[dict[str, Any]]
    tools: ToolChoice | None
    arguments: GenerateArguments
    n: int
    with_logprobs: bool
    n_top: int
    max_tokens: int | None
    variables: Mapping[str, Any] | None
    includes_usage: bool


class ChatTask(Task[ChatCompletion, ChatCompletionChunk]):
    """`body`: the request as JSON has it, without `model` and `stream`. `most`: tokens of an answer
    that does not say; None: all that the context leaves. Everything is checked here:
    InvalidArgumentError, UnsupportedError, TemplateError, ContextOverflowError."""

    def __init__(self, model: ChatModel, body: Mapping[str, Any], most: int | None = None) -> None:
        wish = _read(body)
        super().__init__("chatcmpl", model.name, wish.n, includes_usage=wish.includes_usage)
        self._model = model
        self._prompt, arguments, self._format = _prepared(model, wish)
        room = model.n_ctx - len(self._prompt.ids)
        if room < 1:
            message = (
                f"the conversation has {len(self._prompt.ids)} tokens, and the context of this "
                f"model is {model.n_ctx}; leave out {1 - room} tokens at least"
            )
            raise ContextOverflowError(message, code="context_overflow")
        arguments["max_tokens"] = wish.max_tokens or min(room, most or room)
        self.arguments = arguments
        self._wish = wish
        self._answers = [self._answer(at, model.token_bytes) for at in range(wish.n)]

    @property
    def prompt_ids(self) -> list[int]:
        """What all its texts begin with."""
        return self._prompt.ids

    def start(self, at: int) -> TokenStream:
        arguments = {**self.arguments, "seed": (self.arguments["seed"] + at) % 2**64}
        return self._model.start(self._prompt.ids, cast("GenerateArguments", arguments))

    def opening(self) -> list[ChatCompletionChunk]:
        return [self._chunk(answer.opening()) for answer in self._answers]

    def take(self, at: int, token: Token) -> list[ChatCompletionChunk]:
        choice = self._answers[at].push(token)
        return [] if choice is None else [self._chunk(choice)]

    def end(self, at: int, reason: FinishReason, stats: Stats) -> list[ChatCompletionChunk]:
        self.count(at, stats)
        return [self._chunk(choice) for choice in self._answers[at].end(reason)]

    def usage_chunk(self) -> ChatCompletionChunk:
        return {**self._chunk(None), "usage": self.usage}

    def result(self) -> ChatCompletion:
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [_choice(answer) for answer in self._answers],
            "usage": self.usage,
            "system_fingerprint": self._model.fingerprint,
        }

    def _chunk(self, choice: ChunkChoice | None) -> ChatCompletionChunk:
        chunk: ChatCompletionChunk = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": [] if choice is None else [choice],
            "system_fingerprint": self._model.fingerprint,
        }
        return {**chunk, "usage": None} if self._includes_usage else chunk

    def _answer(self, index: int, token_bytes: TokenBytes) -> Answer:
        tools, form = self._wish.tools, self._format
        reader = None
        if tools is not None and form is not None:
            reader = ToolReader(form, tools.callable)
        marks = {text for one in FORMATS for text in (one.marker, one.closing.strip(), "[ARGS]")}
        specials = self._prompt.special_ids
        return Answer(
            index,
            reader,
            {specials[text]: text for text in (*marks, "<|python_tag|>") if text in specials},
            frozenset(self._prompt.stop_ids),
            token_bytes,
            with_logprobs=self._wish.with_logprobs,
            n_top=self._wish.n_top,
        )


def _read(body: Mapping[str, Any]) -> _Wish:
    fields = Fields(body)
    messages = take_messages(fields.items("messages"))
    tools = take_tools(fields)
    arguments = generate_arguments(fields)
    with_logprobs = fields.flag("logprobs") is True
    n_top = fields.count("top_logprobs", most=_MAX_TOP_LOGPROBS) or 0
    if n_top and not with_logprobs:
        raise wrong("top_logprobs needs logprobs to be true")
    most = [fields.count(name, least=1) for name in ("max_completion_tokens", "max_tokens")]
    wish = _Wish(
        messages,
        tools,
        arguments,
        answers(fields),
        with_logprobs,
        n_top,
        most[0] or most[1],
        fields.mapping("chat_template_kwargs"),
        includes_usage(fields),
    )
    fields.end()
    if arguments.get("response_format") and tools is not None:
        kind = cast("Mapping[str, Any]", arguments["response_format"]).get("type")
        if kind != "text":
            raise wrong("response_format and tools exclude each other: a call has its own format")
    return wish


def _prepared(
    model: ChatModel, wish: _Wish
) -> tuple[ChatPrompt, GenerateArguments, ToolFormat | None]:
    prompt = model.chat_prompt(
        wish.messages,
        tools=None if wish.tools is None else wish.tools.definitions,
        add_generation_prompt=True,
        variables=wish.variables,
    )
    arguments = wish.arguments
    arguments["stop_ids"] = prompt.stop_ids
    arguments["stop"] = (*as_stops(arguments.get("stop")), *prompt.stop)
    if wish.with_logprobs:
        # The sampler's work grows with these, the answer's meaning does not.
        arguments["logprobs"] = max(1, wish.n_top)
    form = None
    if wish.tools is not None:
        form = format_of(prompt.source)
        arguments["response_format"] = form.grammar(wish.tools, prompt.special_ids)
    return prompt, arguments, form


def _choice(answer: Answer) -> Choice:
    calls = answer.tool_calls
    message: Message = {
        "role": "assistant",
        "content": None if calls and not answer.content else answer.content,
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = calls
    content = answer.logprobs
    return {
        "index": answer.index,
        "message": message,
        "logprobs": None if content is None else {"content": content, "refusal": None},
        "finish_reason": answer.finish_reason,
    }
