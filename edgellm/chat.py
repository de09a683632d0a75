"""Chat: turns over one KV cache, which each turn reuses as far as its ids are the same.

Keeps the transcript, with the exact ids of every reply, and decides what goes into the context.
How a conversation becomes text is the template's matter, how tokens are drawn the stream's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from .adapter import Adapter, native_adapter
from .async_calls import AsyncChat
from .chat_format import ChatFormat
from .chat_template import Message
from .closing import Closing
from .errors import ContextOverflowError, InvalidArgumentError
from .lease import SessionLease, context_for
from .long_context import compress_session, kept_tokens, stream_chat
from .options import GenerateOptions, as_stops, check_standing
from .placeholders import Piece, after_prefix, merged, plain_data, plain_pieces
from .recalling import Recalling
from .results import Generation, KeptTokens
from .sampling import SamplingArguments, SamplingRules
from .stream import TokenStream, check_room
from .transcript import Exchange, Transcript, Turn, plain_sequence, template_digest

if TYPE_CHECKING:
    import os

    from . import _native

OverflowPolicy = Literal["drop_oldest_turns", "shift"]
# With the first one and no max_tokens, turns are dropped until this share of the context is free.
_FREE_SHARE = 4


@dataclass(frozen=True)
class _Prompt:
    """What one generation starts from, and which turns are in it."""

    turns: tuple[Turn, ...]
    message: dict[str, Any]
    pieces: tuple[Piece, ...]
    ids: list[int]
    n_dropped: int
    dropped_tokens: int = 0
    continues: Turn | None = None


class Chat(AsyncChat, Recalling, Closing):
    """A conversation with a model; make it with `Model.chat()`. For one thread at a time, except
    `cancel()` of a stream. A context manager: leaving the block frees the KV cache.

    A reply that was cancelled stays in the transcript as far as it came; a message that got no
    token of reply does not.
    """

    _stream_type = TokenStream

    def __init__(
        self,
        model: _native.Model,
        tokenizer: _native.Tokenizer,
        source: str,
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        n_ctx: int | None = None,
        policy: OverflowPolicy | None = None,
        tokens: Mapping[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
        adapter: Adapter | None = None,
        namespace: str = "",
        started: datetime | None = None,
    ) -> None:
        """`tokens`: what the template calls the model's tokens, unless `variables` say it.
        `started`: the time that the template sees, None for now."""
        if policy is not None and policy not in get_args(OverflowPolicy):
            message = f"policy must be None, 'drop_oldest_turns' or 'shift', but is {policy!r}"
            raise InvalidArgumentError(message, code="invalid_argument")
        if n_ctx is not None and n_ctx < 1:
            message = f"n_ctx must be at least 1 or None, but is {n_ctx}"
            raise InvalidArgumentError(message, code="invalid_argument")
        self._model, self._tokenizer = model, tokenizer
        # For the whole chat: a new date would be a new prompt.
        self._started = now = datetime.now() if started is None else started
        self._format = ChatFormat(
            tokenizer,
            source,
            model.eos_ids,
            variables={**(tokens or {}), **(variables or {})},
            now=lambda: now,  # not of self: a chat must go with its last reference
        )
        self._encoder = self._format.encoder
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._tools, self._documents, self._variables = tools, documents, variables
        self._source, self._n_ctx = source, n_ctx
        self._policy = policy
        self._turns: tuple[Turn, ...] = ()
        self._active: TokenStream | None = None
        self._adapter = adapter
        self._is_from_disk = False  # the KV, until the next reply
        check_standing(0, namespace)
        self._session = self._new_session(n_ctx or 0, namespace)
        if policy == "shift":
            stream_chat(self._session)

    # --- talking ------------------------------------------------------------------------------

    def send(self, message: str | Message, **sampling: Any) -> Generation:
        """Say `message` and return the reply. Arguments as of `stream()`."""
        return self.stream(message, **sampling).result()

    def stream(self, message: str | Message, **sampling: Any) -> TokenStream:
        """Say `message`; the reply comes token by token and enters the transcript when it ends.

        `message`: the user's text, or a mapping with a role ({"role": "tool", "content": ...}).
        `sampling`: as for `Model.stream()`; without `max_tokens`, all that the context leaves.
        ContextOverflowError if it does not fit and no policy allows to drop something.
        """
        return self._start(self._prompt(self._finished(), message, sampling), sampling)

    def edit(self, turn: int, message: str | Message, **sampling: Any) -> Generation:
        """Go back to `turns[turn]`, say `message` instead, and forget what followed."""
        return self.stream_edit(turn, message, **sampling).result()

    def stream_edit(self, turn: int, message: str | Message, **sampling: Any) -> TokenStream:
        """`edit()`, token by token."""
        turns = self._finished()
        if not 0 <= turn < len(turns):
            text = f"turn must be in 0..{len(turns) - 1}, but is {turn}"
            raise InvalidArgumentError(text, code="invalid_argument")
        return self._start(self._prompt(turns[:turn], message, sampling), sampling)

    def regenerate(self, **sampling: Any) -> Generation:
        """Another reply to the last message; the same one unless seed or sampling differ."""
        return self.stream_regenerate(**sampling).result()

    def stream_regenerate(self, **sampling: Any) -> TokenStream:
        """`regenerate()`, token by token."""
        last = self._last()
        return self.stream_edit(len(self._turns) - 1, last.message, **sampling)

    def continue_(self, **sampling: Any) -> Generation:
        """Go on with the last reply where it ended; returns the new part."""
        return self.stream_continue(**sampling).result()

    def stream_continue(self, **sampling: Any) -> TokenStream:
        """`continue_()`, token by token."""
        last = self._last()
        ids = [*last.prompt_ids, *last.reply_ids]
        prompt = _Prompt(
            self._turns[:-1], last.message, last.prompt, ids, last.n_dropped, continues=last
        )
        return self._start(prompt, sampling)

    # --- what was said ------------------------------------------------------------------------

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The whole transcript, dropped turns included."""
        return self._turns

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What the next prompt is made of: the system prompt and the turns still in context."""
        n_dropped = self._turns[-1].n_dropped if self._turns else 0
        return self._conversation(self._turns, n_dropped)

    @property
    def context_tokens(self) -> tuple[int, int]:
        """Tokens in the KV cache, and how many fit. Of those that were read, the ones that it let
        go take no room."""
        return self._session.n_tokens - self._session.n_dropped, self._session.n_ctx

    @property
    def adapter(self) -> Adapter | None:
        """Through which prompts and replies go. Setting another one ends a reply under way, and
        the next turn reads the whole conversation again: no KV is used across adapters."""
        return self._adapter

    @adapter.setter
    def adapter(self, adapter: Adapter | None) -> None:
        self._finished()
        self._session.set_adapter(native_adapter(adapter))
        self._adapter = adapter

    def compress(self, ratio: float) -> KeptTokens | None:
        """Leave one of `ratio` tokens of the conversation in the KV cache, those that its end pays
        attention to; the transcript stays. Returns what was kept, None for everything. What went
        makes room for as many tokens beyond `n_ctx`, within the positions of the model."""
        self._finished()
        compress_session(self._session, ratio)
        return kept_tokens(self._session)

    def trim(self, n_bytes: int = 2**63) -> int:
        """Give memory of the KV cache back until the system has got `n_bytes`; returns how many it
        got. The next turn computes the KV again, with the same replies."""
        self._finished()
        return self._session.trim(n_bytes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation and its KV to a file, for `Model.restore()` to go on with; a reply
        under way ends. The file is there whole or not at all, and readable for its owner only.

        FormatError if it cannot be written, InvalidArgumentError for tools, documents or variables
        that are no JSON.
        """
        turns = self._finished()
        if self._session.pending:
            self._session.rewind(self._session.n_tokens)
        transcript = Transcript(
            template=template_digest(self._source),
            system=self._system[0]["content"] if self._system else None,
            tools=plain_sequence(self._tools, "tools"),
            documents=plain_sequence(self._documents, "documents"),
            variables=plain_data(dict(self._variables or {}), "variables"),
            n_ctx=self._n_ctx,
            policy=self._policy,
            started=self._started,
            turns=turns,
        )
        self._session.save(path, transcript.to_json())

    def close(self) -> None:
        """End a reply under way and free the KV cache. Idempotent."""
        self._finished()
        self._session.close()

    def _finished(self) -> tuple[Turn, ...]:
        """The transcript after ending a reply still under way."""
        if self._active is not None:
            self._active.close()
        return self._turns

    def _resume(self, transcript: Transcript, file: _native.SessionFile, *, kv: bool) -> None:
        """Go on with a saved conversation; `Model.restore()` has made this chat for it."""
        if kv:
            self._session.restore(file)
            self._is_from_disk = self._session.n_tokens > self._session.n_recompute
        tokenizers = file.identity["tokenizer"], self._session.identity["tokenizer"]
        templates = transcript.template, template_digest(self._source)
        is_same = tokenizers[0] == tokenizers[1] and templates[0] == templates[1]
        self._turns = transcript.turns
        if not is_same:
            self.recall(
                [
                    Exchange(t.message, t.reply, None, t.finish_reason, t.n_dropped)
                    for t in transcript.turns
                ]
            )

    def _last(self) -> Turn:
        if not self._finished():
            message = "nothing was said yet; send() something first"
            raise InvalidArgumentError(message, code="invalid_argument")
        return self._turns[-1]

    def _conversation(self, turns: Sequence[Turn], n_dropped: int) -> list[dict[str, Any]]:
        said = [
            item
            for turn in turns[n_dropped:]
            for item in (turn.message, {"role": "assistant", "content": turn.reply})
        ]
        return [*self._system, *said]

    def _prompt(
        self, turns: tuple[Turn, ...], message: str | Message, sampling: Mapping[str, Any]
    ) -> _Prompt:
        """Ids for `message` after `turns`, with as many of them as the policy leaves in."""
        if isinstance(message, str):
            message = {"role": "user", "content": message}
        new = plain_data(message, "message")
        n_dropped = turns[-1].n_dropped if turns else 0
        prompt = self._compose(turns, new, n_dropped)
        if self._policy != "drop_oldest_turns":
            return prompt
        n_before = len(prompt.ids)
        n_wanted = sampling.get("max_tokens") or self._session.n_ctx // _FREE_SHARE
        while n_dropped < len(turns) and len(prompt.ids) + n_wanted > context_for(
            self._session, prompt.ids
        ):
            n_dropped += 1
            prompt = self._compose(turns, new, n_dropped)
        return replace(prompt, dropped_tokens=n_before - len(prompt.ids))

    def _composed(
        self, turns: tuple[Turn, ...], message: dict[str, Any], n_dropped: int
    ) -> tuple[tuple[Piece, ...], list[int]]:
        prompt = self._compose(turns, message, n_dropped)
        return prompt.pieces, prompt.ids

    def _compose(self, turns: tuple[Turn, ...], new: dict[str, Any], n_dropped: int) -> _Prompt:
        conversation = [*self._conversation(turns, n_dropped), new]
        pieces = self._format.template.pieces(
            conversation,
            tools=self._tools,
            documents=self._documents,
            add_generation_prompt=True,
        )
        return _Prompt(turns, new, tuple(pieces), self._ids(pieces, turns), n_dropped)

    def _ids(self, pieces: list[Piece], turns: tuple[Turn, ...]) -> list[int]:
        """Ids of a prompt: those of the latest turn that it begins with, then new ones."""
        for turn in reversed(turns):
            reply = plain_pieces(turn.reply, self._encoder.specials) if turn.exact else []
            rest = after_prefix(pieces, merged([*turn.prompt, *reply]))
            if rest is not None:
                known = [*turn.prompt_ids, *(turn.reply_ids if turn.exact else ())]
                return [*known, *self._encoder.encode(rest, at_start=False)]
        return self._encoder.encode(pieces)

    def _start(self, prompt: _Prompt, sampling: dict[str, Any]) -> TokenStream:
        options = self._sampling(prompt.ids, sampling)
        before = prompt.turns[-1].n_dropped if prompt.turns else 0
        held = self._pending_text(prompt.continues) if prompt.continues else ""

        def ended(stream: TokenStream) -> None:
            self._active = None
            if stream.tokens:
                self._turns = (*prompt.turns, self._turn(prompt, stream, held))

        lease = SessionLease(
            self._session,
            ended=ended,
            dropped_tokens=prompt.dropped_tokens,
            dropped_turns=0 if prompt.continues else prompt.n_dropped - before,
            is_from_disk=self._is_from_disk,
            is_endless=self._policy == "shift",
        )
        self._is_from_disk = False
        self._active = self._stream_type(self._model, prompt.ids, options, lease)
        if prompt.continues is None:
            self._turns = prompt.turns
        return self._active

    def _new_session(self, n_ctx: int, namespace: str) -> _native.Session:
        from . import _native

        adapter = native_adapter(self._adapter)
        return _native.Session(self._model, n_ctx, adapter, namespace=namespace)

    def _sampling(self, prompt: list[int], sampling: dict[str, Any]) -> GenerateOptions:
        named = dict(sampling)
        rules = {
            key: named.pop(key) for key in sampling if key in SamplingArguments.__annotations__
        }
        named["rules"] = SamplingRules(**rules)
        is_endless = self._policy == "shift"
        n_ctx = self._session.n_ctx if is_endless else context_for(self._session, prompt)
        if named.get("max_tokens") is None:
            most = n_ctx // _FREE_SHARE if is_endless else n_ctx - len(prompt)
            named["max_tokens"] = max(1, most)
        if named.get("stop_ids") is None:
            named["stop_ids"] = self._format.stop_ids
        named["stop"] = (*as_stops(named.get("stop")), *self._format.stop)
        named["stop_ids"] = tuple(named["stop_ids"])
        try:
            check_room(len(prompt), named["max_tokens"], n_ctx, is_endless)
        except ContextOverflowError as error:
            hint = "" if self._policy else ", or choose policy='drop_oldest_turns'"
            raise ContextOverflowError(f"{error}{hint}", code=error.code) from error
        return GenerateOptions(**named)

    def _turn(self, prompt: _Prompt, stream: TokenStream, held: str) -> Turn:
        tokens = stream.tokens
        by_text = stream.stopped_by_text
        if stream.ended_by_id and not by_text:
            tokens = tokens[:-1]  # the end-of-turn token: the template writes it
        reply = "".join(token.text for token in stream.tokens)
        ids = tuple(token.id for token in tokens)
        exact = not by_text
        if (last := prompt.continues) is not None:
            reply = last.reply.removesuffix(held) + reply
            ids, exact = (*last.reply_ids, *ids), exact and last.exact
        return Turn(
            message=prompt.message,
            reply=reply,
            reply_ids=ids,
            prompt_ids=tuple(prompt.ids) if last is None else last.prompt_ids,
            prompt=prompt.pieces,
            finish_reason=stream.finish_reason or "cancelled",
            n_dropped=prompt.n_dropped,
            exact=exact,
        )

    def _pending_text(self, turn: Turn) -> str:
        """What stands at the end of a reply for a character that was cut off."""
        from . import _native

        decoder = _native.StreamDecoder(self._tokenizer, False)
        for token_id in (*turn.prompt_ids[-1:], *turn.reply_ids):
            decoder.push(token_id)
        return decoder.flush()
