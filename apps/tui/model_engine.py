"""The engine of a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from edgellm.chat import Chat
from edgellm.errors import EdgeError, InvalidArgumentError
from edgellm.model import Model
from edgellm.results import Generation
from edgellm.stream import TokenStream
from edgellm.transcript import Exchange, Turn

from .messages import (
    Ask,
    Call,
    Event,
    Measure,
    Measured,
    ModelCard,
    ReplyEnded,
    ReplyStarted,
    TextPiece,
)

_N_SEEDS = 2**64
_POINTS = 8  # of a measured reply


class ModelEngine:
    """An `Engine` over chats with a loaded model. `sampling` goes into every reply; each further
    try at one message takes the next seed. `options` go into every chat that is made. `chat`: one
    that goes on; `save_to`: a file that the chat is saved to at the end. `open_model` opens another
    model by its name; with it the engine closes every model but the last, and that at the end."""

    def __init__(
        self,
        model: Model,
        name: str,
        sampling: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        chat: Chat | None = None,
        save_to: Path | None = None,
        open_model: Callable[[str], Model] | None = None,
    ) -> None:
        self._model, self._name = model, name
        self._options = dict(options or {})
        self._sampling = dict(sampling)
        self._open_model, self._save_to = open_model, save_to
        # Of a chat that goes on only the chat knows how it was made: it stays as it is.
        self._is_given = chat is not None
        self._made_with: tuple[str | None, tuple[Mapping[str, Any], ...]] = (None, ())
        self._chat = model.chat(**self._options) if chat is None else chat
        self._said = tuple(map(_exchange, self._chat.turns))
        self._stream: TokenStream | None = None
        self._stopped = False
        self._last_result: Generation | None = None
        self._card = self._card_of(model, name)

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self._card

    @property
    def said(self) -> tuple[Exchange, ...]:
        """See `Engine`; later the turns that the chat has now."""
        return self._said

    @property
    def last_result(self) -> Generation | None:
        """The reply that ended last."""
        return self._last_result

    def reply(self, ask: Ask) -> Generator[Event, None, None]:
        """See `Engine`."""
        stream = self._stream = self._begin(ask)
        try:
            with stream:
                yield ReplyStarted(stream.stats.prompt_tokens)
                for token in stream:
                    yield TextPiece(token.text)
        finally:
            self._stream = None
            self._said = tuple(map(_exchange, self._chat.turns))
        self._last_result = result = stream.result()
        stats = result.stats
        kept = bool(result.token_ids)
        yield ReplyEnded(
            finish_reason=result.finish_reason,
            kept=kept,
            n_tokens=stats.generated_tokens,
            tokens_per_s=stats.tokens_per_s,
            ttft_ms=stats.ttft_ms,
            prompt_tokens=stats.prompt_tokens,
            reused_tokens=stats.reused_tokens,
            context_tokens=self._chat.context_tokens[0],
            dropped_turns=result.dropped_turns,
            dropped_tokens=stats.dropped_tokens,
            disk_tokens=stats.reused_disk_tokens,
            drafted_tokens=stats.drafted_tokens,
            accepted_tokens=stats.accepted_tokens,
            exchange=self._said[-1] if kept else None,
            calls=self._calls() if kept and ask.tools else (),
        )

    def switch(self, name: str) -> ModelCard:
        """See `Engine`. The old model is freed when the new one is there."""
        if self._open_model is None:
            message = "this chat stays with its model; start without --session to change it"
            raise InvalidArgumentError(message, code="invalid_argument")
        model = self._open_model(name)
        try:
            self._options.pop("adapter", None)  # it is of the model before
            card = self._card_of(model, name)
            chat = model.chat(**self._options)
        except EdgeError:
            model.close()
            raise
        self._chat.close()
        self._model.close()
        self._model, self._name, self._card, self._chat = model, name, card, chat
        self._made_with, self._said, self._is_given = (None, ()), (), False
        return card

    def measure(self, wish: Measure) -> Generator[Measured, None, None]:
        """See `Engine`."""
        n_vocab = self._model.info().n_vocab
        self._stopped = False
        for n_round in range(wish.n_rounds):
            # Another beginning in every round: nothing of the one before is reused.
            ids = [(n_round * 7919 + 13 * i + 5) % n_vocab for i in range(wish.n_prompt)]
            stream = self._stream = self._model.stream(
                ids, max_tokens=wish.n_reply, ignore_eos=True
            )
            each = max(1, wish.n_reply // _POINTS)
            with stream:
                for n, _ in enumerate(stream):
                    if n % each == each - 1:
                        stats = stream.stats
                        yield Measured(n_round, stats.prefill_tokens_per_s, stats.tokens_per_s)
            self._stream = None
            if self._stopped:
                break
        stats = stream.stats
        yield Measured(n_round, stats.prefill_tokens_per_s, stats.tokens_per_s, is_last=True)

    def count(self, text: str) -> int:
        """See `Engine`."""
        return len(self._model.tokenize(text, bos=False))

    def stop(self) -> None:
        """See `Engine`."""
        self._stopped = True
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def close(self) -> None:
        """Saves the chat, once, and frees what this engine opened. Idempotent."""
        path, self._save_to = self._save_to, None
        try:
            if path is not None:
                self._chat.save(path)
        finally:
            self._chat.close()
            if self._open_model is not None:
                self._model.close()

    def _begin(self, ask: Ask) -> TokenStream:
        self._make_chat(ask)
        self._recall(ask.past if ask.begun is None else (*ask.past, ask.begun))
        sampling = self._sampling
        if ask.attempt:
            sampling = {**sampling, "seed": (sampling.get("seed", 0) + ask.attempt) % _N_SEEDS}
        if ask.begun is not None:
            return self._chat.stream_continue(**sampling)
        return self._chat.stream({"role": ask.role, "content": ask.message}, **sampling)

    def _make_chat(self, ask: Ask) -> None:
        """Another one where the system prompt or the tools are other ones."""
        wanted = (ask.system, ask.tools)
        if self._is_given or wanted == self._made_with:
            return
        chat = self._model.chat(ask.system, tools=list(ask.tools) or None, **self._options)
        self._chat.close()
        self._chat, self._made_with, self._said = chat, wanted, ()

    def _recall(self, past: tuple[Exchange, ...]) -> None:
        """Keeps the turns that are as the chat has them, with what was read of them."""
        pairs = zip(past, self._said, strict=False)
        n_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if n_same < len(past) or n_same < len(self._said):
            self._said = ()
            self._chat.recall([*self._chat.turns[:n_same], *past[n_same:]])

    def _calls(self) -> tuple[Call, ...]:
        return tuple(Call(*call) for call in self._chat.tool_calls(self._chat.turns[-1]))

    def _card_of(self, model: Model, name: str) -> ModelCard:
        info = model.info()
        formats = {k: n for k, n in info.weight_formats.items() if k != "F32"}
        weights = max(formats, key=lambda name: formats[name], default="F32")
        n_ctx = self._options.get("n_ctx") or info.n_ctx
        return ModelCard(
            name=name,
            details=f"{count_in_words(info.n_parameters)} parameters, {weights}, "
            f"{info.threads} threads",
            n_ctx=self._chat.context_tokens[1] if model is self._model else n_ctx,
            varies=self._sampling.get("temperature", 0.0) > 0,
            root=info.root,
        )


def _exchange(turn: Turn) -> Exchange:
    ids = turn.reply_ids if turn.exact else None
    return Exchange(turn.message, turn.reply, ids, turn.finish_reason, turn.n_dropped)


def count_in_words(n: int) -> str:
    """5770528 -> "5.8M"."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= limit:
            return f"{n / limit:.1f}{unit}"
    return str(n)
