"""A text completion of OpenAI's older API, with `echo` and `logprobs` as harnesses use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from ..errors import ContextOverflowError
from ..options import GenerateArguments
from ..results import FinishReason, Stats, Token
from ..scoring import PromptScore
from .answer import TokenBytes
from .fields import Fields, answers, generate_arguments, includes_usage, sound, wrong
from .task import Task
from .types import Completion, TextChoice, TextLogprobs

if TYPE_CHECKING:
    from ..stream import TokenStream

_DEFAULT_MAX_TOKENS = 16  # the API's
_MAX_LOGPROBS = 20
_MAX_PROMPTS = 256


class TextModel(Protocol):
    """What a task asks of a model."""

    name: str
    fingerprint: str
    n_ctx: int

    def tokenize(self, text: str) -> list[int]:
        """Ids, with what the model expects in front."""

    def prompt_scores(self, prompts: Sequence[Sequence[int]], n_top: int) -> list[PromptScore]:
        """How likely the tokens of prompts are."""

    def start(self, ids: list[int], arguments: GenerateArguments) -> TokenStream:
        """One text."""

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of ids."""


class _Text:
    """One of the texts: what came of it so far."""

    def __init__(self, ids: list[int], echo: str) -> None:
        self.ids = ids
        self.text = echo
        self.tokens: list[tuple[str, float | None, dict[str, float] | None]] = []
        self.n_said = 0  # of the tokens, in chunks
        self.offset = 0
        self.finish_reason: Literal["stop", "length"] | None = None


class TextTask(Task[Completion, Completion]):
    """`body`: the request as JSON has it, without `model` and `stream`. Everything is checked, and
    prompts that are echoed with their probabilities are scored, here."""

    def __init__(self, model: TextModel, body: Mapping[str, Any]) -> None:
        fields = Fields(body)
        prompts = _prompts(fields.take("prompt", (str, list, tuple), "text or token ids"), model)
        self._arguments = generate_arguments(fields)
        n = answers(fields)
        self._echo = fields.flag("echo") is True
        self._n_top = fields.count("logprobs", most=_MAX_LOGPROBS)
        n_new = fields.count("max_tokens")
        self._n_new = _DEFAULT_MAX_TOKENS if n_new is None else n_new
        if fields.take("suffix", str, "a text"):
            raise wrong("suffix is not supported here: models are read from the front only")
        usage = includes_usage(fields)
        fields.end()
        if self._n_new == 0 and not self._echo:
            raise wrong("max_tokens may be 0 with echo only: there would be nothing to answer")
        super().__init__("cmpl", model.name, n * len(prompts), includes_usage=usage)
        self._per_prompt = n
        self._model = model
        for at, ids in enumerate(prompts):
            _check_room(at, len(ids), self._n_new, model.n_ctx)
        if self._n_new > 0:
            self._arguments["max_tokens"] = self._n_new
        if self._n_top is not None:
            self._arguments["logprobs"] = max(1, self._n_top)
        echoes = [model.detokenize(ids) if self._echo else "" for ids in prompts]
        self._texts = [
            _Text(ids, echo) for ids, echo in zip(prompts, echoes, strict=True) for _ in range(n)
        ]
        if self._echo and self._n_top is not None:
            scores = model.prompt_scores(prompts, self._n_top)
            for at, text in enumerate(self._texts):
                self._add_prompt(text, scores[at // n])

    @property
    def per_prompt(self) -> int:
        return self._per_prompt

    @property
    def is_scoring_only(self) -> bool:
        """Nothing is to be generated: the result is there."""
        return self._n_new == 0

    def start(self, at: int) -> TokenStream:
        seed = (self._arguments["seed"] + at % self._per_prompt) % 2**64
        arguments = cast("GenerateArguments", {**self._arguments, "seed": seed})
        return self._model.start(self._texts[at].ids, arguments)

    def opening(self) -> list[Completion]:
        if not self._echo:
            return []
        return [self._chunk(at, text, text.text) for at, text in enumerate(self._texts)]

    def take(self, at: int, token: Token) -> list[Completion]:
        text = self._texts[at]
        text.text += token.text
        if self._n_top is not None:
            top = {
                _name(self._model.token_bytes, one): value
                for one, value in reversed(token.top_logprobs[: self._n_top])
            }
            text.tokens.append((_name(self._model.token_bytes, token.id), token.logprob, top))
        return [self._chunk(at, text, token.text)] if token.text else []

    def end(self, at: int, reason: FinishReason, stats: Stats) -> list[Completion]:
        self.count(at, stats)
        text = self._texts[at]
        text.finish_reason = "stop" if reason == "stop" else "length"
        return [self._chunk(at, text, "")]

    def usage_chunk(self) -> Completion:
        return self._completion([], with_usage=True)

    def result(self) -> Completion:
        if self.is_scoring_only:
            for at, text in enumerate(self._texts):
                text.finish_reason = "length"
                self._usage[0] += len(text.ids) if at % self._per_prompt == 0 else 0
        for text in self._texts:
            text.n_said = text.offset = 0
        choices = [self._choice(at, text, text.text) for at, text in enumerate(self._texts)]
        return self._completion(choices, with_usage=True)

    def _chunk(self, at: int, text: _Text, new: str) -> Completion:
        return self._completion([self._choice(at, text, new)], with_usage=False)

    def _choice(self, at: int, text: _Text, new: str) -> TextChoice:
        return {
            "index": at,
            "text": new,
            "logprobs": None if self._n_top is None else _logprobs(text),
            "finish_reason": text.finish_reason,
        }

    def _completion(self, choices: list[TextChoice], *, with_usage: bool) -> Completion:
        whole: Completion = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": self._model.fingerprint,
        }
        if with_usage:
            return {**whole, "usage": self.usage}
        return {**whole, "usage": None} if self._includes_usage else whole

    def _add_prompt(self, text: _Text, score: PromptScore) -> None:
        names = [_name(self._model.token_bytes, token_id) for token_id in text.ids]
        text.tokens.append((names[0], None, None))
        for name, value, best in zip(names[1:], score.logprobs, score.top_logprobs, strict=True):
            top = {_name(self._model.token_bytes, one): lp for one, lp in reversed(best)}
            text.tokens.append((name, value, top))


def _logprobs(text: _Text) -> TextLogprobs:
    """Of the tokens that no chunk had yet."""
    new = text.tokens[text.n_said :]
    text.n_said = len(text.tokens)
    offsets = []
    for name, _, _ in new:
        offsets.append(text.offset)
        text.offset += len(name)
    return {
        "tokens": [name for name, _, _ in new],
        "token_logprobs": [value for _, value, _ in new],
        "top_logprobs": [top for _, _, top in new],
        "text_offset": offsets,
    }


def _name(token_bytes: TokenBytes, token_id: int) -> str:
    return token_bytes(token_id).decode(errors="replace")


def _prompts(given: Any, model: TextModel) -> list[list[int]]:
    """A text, texts, ids or lists of ids."""
    if given is None:
        raise wrong("prompt is missing")
    if isinstance(given, str):
        return [model.tokenize(sound(given, "prompt"))]
    if not given:
        raise wrong("prompt is empty; give a text or token ids")
    if all(_is_id(one) for one in given):
        return [list(given)]
    if len(given) > _MAX_PROMPTS:
        raise wrong(f"prompt may hold {_MAX_PROMPTS} texts, but holds {len(given)}")
    found = []
    for at, one in enumerate(given):
        if isinstance(one, str):
            found.append(model.tokenize(sound(one, f"prompt[{at}]")))
        elif isinstance(one, list) and one and all(_is_id(token_id) for token_id in one):
            found.append(list(one))
        else:
            raise wrong(f"prompt[{at}] must be a text or token ids, but is {one!r:.60}")
    return found


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_room(at: int, n_prompt: int, n_new: int, n_ctx: int) -> None:
    if n_prompt == 0:
        raise wrong(f"prompt {at} has no tokens; give at least one character or one id")
    if n_prompt + n_new > n_ctx:
        message = (
            f"prompt {at} has {n_prompt} tokens and max_tokens is {n_new}, but the context of this "
            f"model is {n_ctx} tokens"
        )
        raise ContextOverflowError(message, code="context_overflow")
