"""What `Model` has of OpenAI's API: conversations and prompts in, its objects out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, overload

if TYPE_CHECKING:
    from ..chat_format import ChatPrompt
    from ..chat_template import Message
    from ..model import Model
    from ..results import Token
    from ..scoring import PromptScore
    from ..stream import TokenStream
    from .chat_task import ChatTask
    from .text_task import TextTask
    from .types import ChatCompletion, ChatCompletionChunk, Completion


class DrawArguments(TypedDict, total=False):
    """How text is drawn, by OpenAI's names and edgellm's own (`GenerateOptions`). `seed`: left out,
    one that nobody knows. `logit_bias`: ids, as numbers or texts, to -100..100."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    repetition_penalty: float
    penalty_window: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[str, float] | Mapping[int, float]
    seed: int
    stop: str | Sequence[str]
    n: int
    stream_options: Mapping[str, Any]
    response_format: Mapping[str, Any]
    max_tokens: int
    min_tokens: int
    ignore_eos: bool
    priority: int
    namespace: str
    speculate: bool
    user: str


class ChatArguments(DrawArguments, total=False):
    """Keyword arguments of a chat completion; docs/TOOLS.md has `tools`. `chat_template_kwargs`:
    more names for the template (`enable_thinking`)."""

    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    max_completion_tokens: int
    logprobs: bool
    top_logprobs: int
    chat_template_kwargs: Mapping[str, Any]


class TextArguments(DrawArguments, total=False):
    """Keyword arguments of a text completion. `echo`: the prompt stands in front of the answer, and
    `logprobs`, how many alternatives to tell, are of its tokens, too."""

    echo: bool
    logprobs: int


class CompletionCalls:
    """Objects are plain dictionaries, those of `completions/types.py`."""

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text, not at its beginning; may be half a character. Of a special
        token how it is spelled. InvalidArgumentError."""
        from ..stream import checked_ids

        model = cast("Model", self)
        (checked,) = checked_ids([token_id], model._native.n_vocab, "token_id")
        tokenizer = model._tokenizer()
        if checked >= tokenizer.n_vocab:
            return b""  # a row of the head that no token has
        if tokenizer.is_special(checked):
            return tokenizer.token_text(checked).encode()
        return tokenizer.token_bytes(checked)

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        template: str | Path | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> ChatPrompt:
        """A whole conversation as text and ids, for `stream()`; see `ChatTemplate.pieces()`.
        `template`: as for `chat()`. TemplateError, FormatError, InvalidArgumentError."""
        from .view import chat_format

        return chat_format(cast("Model", self), template).prompt(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt and not continue_final_message,
            continue_final_message=continue_final_message,
            variables=variables,
        )

    @overload
    def create_chat_completion(
        self,
        messages: Sequence[Message],
        *,
        stream: Literal[False] = False,
        template: str | Path | None = None,
        **arguments: Unpack[ChatArguments],
    ) -> ChatCompletion: ...

    @overload
    def create_chat_completion(
        self,
        messages: Sequence[Message],
        *,
        stream: Literal[True],
        template: str | Path | None = None,
        **arguments: Unpack[ChatArguments],
    ) -> Iterator[ChatCompletionChunk]: ...

    def create_chat_completion(
        self,
        messages: Sequence[Message],
        *,
        stream: bool = False,
        template: str | Path | None = None,
        **arguments: Unpack[ChatArguments],
    ) -> ChatCompletion | Iterator[ChatCompletionChunk]:
        """The answer to a conversation, as OpenAI's API has it; `stream=True`: in chunks. What
        `edgellm serve` answers, without a server.

        `template`: as for `chat()`. Greedy unless `temperature` is given. All is checked before any
        work: InvalidArgumentError, UnsupportedError, TemplateError, ContextOverflowError. Of what
        was generated: ToolCallError. Close a stream that is left early.
        """
        from .task import run_task, stream_task

        task = self._chat_task(messages, template, arguments)
        return stream_task(task, self._together) if stream else run_task(task, self._together)

    async def acreate_chat_completion(
        self,
        messages: Sequence[Message],
        *,
        template: str | Path | None = None,
        **arguments: Unpack[ChatArguments],
    ) -> ChatCompletion:
        """`create_chat_completion()` for asyncio; a cancelled task cancels its texts."""
        import asyncio

        from .async_task import arun_task

        return await arun_task(
            await asyncio.to_thread(self._chat_task, messages, template, arguments)
        )

    async def astream_chat_completion(
        self,
        messages: Sequence[Message],
        *,
        template: str | Path | None = None,
        **arguments: Unpack[ChatArguments],
    ) -> AsyncIterator[ChatCompletionChunk]:
        """Its chunks, for asyncio: `async for`; what is wrong with the arguments is raised by the
        first step."""
        import asyncio

        from .async_task import astream_task

        task = await asyncio.to_thread(self._chat_task, messages, template, arguments)
        async for chunk in astream_task(task):
            yield chunk

    @overload
    def create_completion(
        self,
        prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        *,
        stream: Literal[False] = False,
        **arguments: Unpack[TextArguments],
    ) -> Completion: ...

    @overload
    def create_completion(
        self,
        prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        *,
        stream: Literal[True],
        **arguments: Unpack[TextArguments],
    ) -> Iterator[Completion]: ...

    def create_completion(
        self,
        prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
        *,
        stream: bool = False,
        **arguments: Unpack[TextArguments],
    ) -> Completion | Iterator[Completion]:
        """The continuation of a prompt or of several, as OpenAI's older API has it, 16 tokens
        unless `max_tokens` says; errors as of `create_chat_completion()`."""
        from .task import run_task, stream_task

        task = self._text_task(prompt, arguments)
        if task.is_scoring_only:
            return iter([task.result()]) if stream else task.result()
        return stream_task(task, self._together) if stream else run_task(task, self._together)

    def _together(self, n: int, start: Callable[[int], TokenStream]) -> Iterator[tuple[int, Token]]:
        from ..batch import AT_ONCE, TokenBatch

        return TokenBatch(n, start, AT_ONCE)

    def _prompt_scores(self, prompts: Sequence[Sequence[int]], n_top: int) -> list[PromptScore]:
        from ..scoring import score_prompts

        return score_prompts(cast("Model", self)._native, prompts, n_top)

    def _chat_task(
        self, messages: Sequence[Message], template: str | Path | None, arguments: ChatArguments
    ) -> ChatTask:
        from .chat_task import ChatTask
        from .view import ModelView

        model = cast("Model", self)
        view = ModelView(model, model._path.stem, template)
        return ChatTask(view, {**arguments, "messages": messages})

    def _text_task(self, prompt: Any, arguments: TextArguments) -> TextTask:
        from .text_task import TextTask
        from .view import ModelView

        model = cast("Model", self)
        return TextTask(ModelView(model, model._path.stem), {**arguments, "prompt": prompt})
