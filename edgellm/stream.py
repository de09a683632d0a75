"""One generation: a prompt goes in, tokens come out one by one.

Drives a native session (append, run in short slices, sample) and turns ids into text. Knows
nothing of files, chat templates or terminals. Python code runs between slices, so Ctrl-C and
`cancel()` take effect within about 100 ms, in the prompt too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import index
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Literal, SupportsIndex

from .closing import Closing
from .confidence import mean_probability, token_signals
from .drafting import Drafting
from .errors import Cancelled, ContextOverflowError, InvalidArgumentError, UnsupportedError
from .lease import SessionLease, context_for
from .long_context import N_SINK, compress_session, context_of, kept_tokens
from .options import GenerateOptions
from .pacing import paced
from .results import FinishReason, Generation, KeptTokens, Stats, Token
from .stops import StopMatcher
from .watching import PrefillWatch

if TYPE_CHECKING:
    from . import _native
    from ._native_types import SessionStats
    from .constraint import Constraint, Words

# Longest time in native code before Python looks for Ctrl-C.
SLICE_MS = 80.0
# Prompt tokens shown to the stream decoder before the first new one: enough to hold a character
# cut into byte tokens, and to know that the text does not begin here.
_DECODER_CONTEXT = 8


class TokenStream(Closing):
    """Iterator over the tokens of one generation. For one thread at a time, except `cancel()`.
    `adapter`: of a generation with a sequence of its own; a lease's session has one already.

    Owns one sequence (its KV pages). They are freed at the end of the text, by `close()`, at the
    end of a `with` block, or when the object is garbage-collected, whichever is first.
    """

    def __init__(
        self,
        model: _native.Model,
        prompt_ids: Sequence[int],
        options: GenerateOptions,
        lease: SessionLease | None = None,
        adapter: _native.Adapter | None = None,
    ) -> None:
        from . import _native

        started = perf_counter()
        self._session: _native.Session | None = None
        self._finish_reason: FinishReason | None = None
        self._cancelled = False
        self._kept: KeptTokens | None = None
        self._tokens: list[Token] = []
        self._n_queued = 0  # of these, given to the session
        self._is_read = False  # the prompt was
        self._ended_by_id = False
        self._prompt = checked_ids(prompt_ids, model.n_vocab, "prompt")
        self._options = options
        self._lease = lease
        self._lock = RLock()
        if lease is None:
            n_ctx, is_endless = model.n_ctx_train, options.window > 0
        else:
            lease.check(options)
            n_ctx, is_endless = context_for(lease.session, self._prompt), lease.is_endless
        check_room(len(self._prompt), 1 if is_endless else options.max_tokens, n_ctx, is_endless)
        if options.logprobs > model.n_vocab:
            message = f"logprobs is {options.logprobs}, but the vocabulary has {model.n_vocab} ids"
            raise InvalidArgumentError(message, code="invalid_argument")
        stop_ids = model.eos_ids if options.stop_ids is None else options.stop_ids
        self._stop_ids = frozenset(checked_ids(stop_ids, model.n_vocab, "stop_ids"))
        self.params = _native.SamplerParams(
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            seed=options.seed,
            **options.rules.native_arguments(model, self._stop_ids),
        )
        self._constraint = self._constrained(model)
        # The model is asked about tokens that are forced, too, where its answer is wanted, and
        # while the prompt is to be compressed right after it was read.
        self._skips_forced = (options.logprobs, options.signals, options.compress) == (0, False, 1)
        self._plain = _native.SamplerParams()
        self._stops = StopMatcher(options.stop)
        tokenizer = model.tokenizer
        if options.stop and tokenizer is None:
            message = "stop strings need a tokenizer and this file has none; use stop_ids instead"
            raise UnsupportedError(message, code="tokenizer_unsupported")
        self._decoder = None if tokenizer is None else _native.StreamDecoder(tokenizer, False)
        if lease is None:
            n_most = len(self._prompt) + options.max_tokens
            if options.window > 0:
                n_most = context_of(options.window, model.n_ctx_train)
            session = _native.Session(model, n_most, adapter, namespace=options.namespace)
            if options.window > 0:
                session.stream_within(N_SINK, options.window)
            session.append(self._prompt)
        else:
            lease.begin(self._prompt)
            session = lease.session
        session.set_priority(options.priority)
        self._drafting = Drafting(session, options.speculate)
        self._session = session
        if self._decoder is not None:
            # The text continues the prompt: a leading space stays, a cut character is completed.
            for token_id in self._prompt[-_DECODER_CONTEXT:]:
                self._decoder.push(token_id)
        self._stats_before = self._session.stats
        self._n_reused = 0
        self._n_from_disk = 0
        # Time inside this object only: what the consumer does between tokens is not counted.
        self._prefill_s = 0.0
        self._decode_s = 0.0
        self._setup_s = perf_counter() - started
        told = options.on_prefill
        self._watch = None if told is None else PrefillWatch(told, self.n_prompt)
        if options.cancel is not None:
            options.cancel.attach(self)

    def _constrained(self, model: _native.Model) -> Constraint | None:
        if self._options.response_format is None:
            return None
        from .grammar import constraint_for  # numpy and llguidance: when they are needed

        return constraint_for(model, self._options, self._stop_ids)

    def __iter__(self) -> TokenStream:
        return self

    def __next__(self) -> Token:
        session = self._session
        if session is None:
            raise StopIteration
        if self._cancelled:
            self._finish("cancelled")
            raise StopIteration
        try:
            return self._step(session)
        except Cancelled:
            self._finish("cancelled")
            if self._cancelled:
                raise StopIteration from None
            raise  # the model was closed under us
        except BaseException:
            self.close()
            raise

    def _step(self, session: _native.Session) -> Token:
        started = perf_counter()
        if (forced := self.take_forced()) is not None:
            return forced
        self.feed(session)
        while not paced(session.run, SLICE_MS, lambda: self._cancelled):
            self.report(session)
        params, allowed = self.choice()
        chosen = session.sample(params, n_prompt=self.n_prompt, allowed=allowed)
        return self.take(session, chosen, started)

    def feed(self, session: _native.Session) -> None:
        """Queue the tokens that are not yet: the newest, and forced ones before it."""
        new = [token.id for token in self._tokens[self._n_queued :]]
        if not new:
            return
        if self._options.compress > 1 and len(self._tokens) == 1:
            compress_session(session, self._options.compress)
        session.append(new)
        self._n_queued += len(new)

    def choice(self) -> tuple[_native.SamplerParams, Words | None]:
        """How the next token is chosen: with which parameters, of which ids (None: of all)."""
        if self._constraint is None:
            return self.params, None
        allowed = self._constraint.allowed()
        return (self.params if self._constraint.forced is None else self._plain), allowed

    def report(self, session: _native.Session) -> None:
        """To who watches the prompt being read."""
        if self._watch is not None:
            self._watch.tell(session.n_tokens)

    def spend(self, elapsed_s: float) -> None:
        """Time that went into the next token."""
        if self._is_read:
            self._decode_s += elapsed_s
        else:
            self._prefill_s += elapsed_s

    def take_forced(self) -> Token | None:
        """The next token if the grammar leaves no choice, so that no step is needed for it."""
        constraint = self._constraint
        if constraint is None or constraint.forced is None or not self._skips_forced:
            return None
        return self._add(Token(constraint.forced, "", 0.0))

    def take(self, session: _native.Session, chosen: tuple[int, float], started: float) -> Token:
        """The token that was `chosen` after what is queued was run, since `started`; ends the text
        where it ends it."""
        token_id, logprob = chosen
        n_best = self._options.logprobs
        best = tuple(session.top_logprobs(n_best)) if n_best > 0 else ()
        signals = token_signals(session.logits(), token_id) if self._options.signals else None
        if not self._is_read:
            self.report(session)
            self._count_reused(session.stats)
        self.spend(perf_counter() - started)
        self._is_read = True
        return self._add(Token(token_id, "", logprob, best, signals=signals))

    def _add(self, chosen: Token) -> Token:
        token_id, constraint = chosen.id, self._constraint
        is_forced = constraint is not None and constraint.take(token_id)
        self._ended_by_id = token_id in self._stop_ids and not is_forced
        ended = self._ended_by_id or (constraint is not None and constraint.is_over)
        full = len(self._tokens) + 1 == self._options.max_tokens
        text = "" if self._ended_by_id or self._decoder is None else self._decoder.push(token_id)
        text = self._stops.push(text)
        if self._stops.matched is None and (ended or full):
            tail = "" if self._decoder is None else self._decoder.flush()
            text += self._stops.push(tail) + self._stops.flush()
        token = replace(chosen, text=text, forced=is_forced)
        self._tokens.append(token)
        if ended or self._stops.matched is not None:
            self._finish("stop")
        elif full:
            self._finish("length")
        return token

    def _count_reused(self, stats: SessionStats) -> None:
        before, lease = self._stats_before, self._lease
        self._n_reused = stats["n_reused_tokens"] - before["n_reused_tokens"]
        self._n_from_disk = stats["n_disk_tokens"] - before["n_disk_tokens"]
        if lease is not None:
            self._n_reused += lease.n_held
            self._n_from_disk += lease.n_from_disk

    def cancel(self) -> None:
        """End the text early, from any thread; the iteration stops within about 100 ms."""
        self._cancelled = True
        with self._lock:
            session = self._session
            if session is not None:
                with suppress(InvalidArgumentError):  # the text may end at this very moment
                    session.cancel()

    def close(self) -> None:
        """Free the sequence now. Ends an unfinished text as "cancelled". Idempotent."""
        self._finish("cancelled")

    def _finish(self, reason: FinishReason) -> None:
        if self._finish_reason is None:
            self._finish_reason = reason
        with self._lock:
            session, self._session = self._session, None
        if session is None:
            return
        with suppress(InvalidArgumentError):  # of a model that was closed
            self._kept = kept_tokens(session)
            self._drafting.end(session)
        if self._lease is None:
            session.close()
            return
        if self._cancelled:
            # What cancel() left behind must not end the next text.
            with suppress(Cancelled, InvalidArgumentError):
                session.rewind(session.n_tokens)
                session.run(0.0)
        self._lease.ended(self)

    @property
    def session(self) -> _native.Session | None:
        """For who drives several streams; None once the text is over."""
        return self._session

    @property
    def n_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self._prompt)

    @property
    def is_cancelled(self) -> bool:
        """`cancel()` was called."""
        return self._cancelled

    @property
    def finish_reason(self) -> FinishReason | None:
        """ "stop", "length" or "cancelled"; None while the text goes on."""
        return self._finish_reason

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Taken so far, the one that ended the text included."""
        return tuple(self._tokens)

    @property
    def stopped_by_text(self) -> bool:
        """A stop string has ended the text; the tokens hold more than the text does."""
        return self._stops.matched is not None

    @property
    def ended_by_id(self) -> bool:
        """The last token is one of the ids that end a text, and no part of it."""
        return self._ended_by_id

    @property
    def stats(self) -> Stats:
        """Measured so far."""
        from . import _native

        n_new, n_prompt = len(self._tokens), len(self._prompt)
        lease = self._lease
        n_read = n_prompt - self._n_reused
        drafts = self._drafting.figures(self._session)
        return Stats(
            prompt_tokens=n_prompt,
            reused_tokens=self._n_reused,
            reused_from=self._reused_from(),
            reused_disk_tokens=self._n_from_disk,
            generated_tokens=n_new,
            forced_tokens=sum(token.forced for token in self._tokens),
            ttft_ms=1e3 * (self._setup_s + self._prefill_s) if n_new else 0.0,
            prefill_tokens_per_s=n_read / self._prefill_s if self._prefill_s > 0 else 0.0,
            tokens_per_s=(n_new - 1) / self._decode_s if self._decode_s > 0 else 0.0,
            peak_rss_bytes=_native.memory_figures()["peak_rss_bytes"],
            dropped_tokens=0 if lease is None else lease.dropped_tokens,
            speculating=drafts.is_on,
            drafted_tokens=drafts.n_drafted,
            accepted_tokens=drafts.n_accepted,
            drafters=drafts.drafters,
            saved_ms=drafts.saved_ms,
            capped_steps=drafts.capped_steps,
            first_mismatch=None if lease is None else lease.first_mismatch,
        )

    def _reused_from(self) -> Literal["ram", "disk"] | None:
        if self._n_reused == 0:
            return None
        return "disk" if self._n_from_disk > 0 else "ram"

    def result(self) -> Generation:
        """Run to the end and return everything, tokens already taken included."""
        for _ in self:
            pass
        return Generation(
            text="".join(token.text for token in self._tokens),
            token_ids=[token.id for token in self._tokens],
            logprobs=[token.logprob for token in self._tokens],
            finish_reason=self._finish_reason or "cancelled",
            stats=self.stats,
            top_logprobs=[token.top_logprobs for token in self._tokens]
            if self._options.logprobs > 0
            else [],
            dropped_turns=0 if self._lease is None else self._lease.dropped_turns,
            kept=self._kept,
            confidence=mean_probability([one.logprob for one in self._tokens if not one.forced]),
            signals=[one.signals for one in self._tokens if one.signals is not None],
        )


def checked_ids(ids: Iterable[SupportsIndex], n_vocab: int, name: str) -> list[int]:
    """`ids` as plain ints, every one of them in the vocabulary; `name` is for the message."""
    try:
        plain = [index(token_id) for token_id in ids]
    except TypeError as error:
        message = f"{name} must hold token ids, whole numbers: {error}"
        raise InvalidArgumentError(message, code="invalid_argument") from error
    for at, token_id in enumerate(plain):
        if not 0 <= token_id < n_vocab:
            message = f"{name}[{at}] is {token_id}, but this model's ids are 0..{n_vocab - 1}"
            raise InvalidArgumentError(message, code="token_out_of_range")
    return plain


def check_room(n_prompt: int, max_tokens: int, n_ctx: int, is_endless: bool = False) -> None:
    """Refuse before any work what cannot end well. is_endless: old tokens make room."""
    if n_prompt == 0:
        message = "the prompt has no tokens; give at least one character or one id"
        raise InvalidArgumentError(message, code="invalid_argument")
    if n_prompt + max_tokens <= n_ctx or is_endless:
        return
    room = n_ctx - n_prompt
    remedy = f"set max_tokens to at most {room}" if room > 0 else f"cut {1 - room} prompt tokens"
    message = (
        f"{n_prompt} prompt tokens + max_tokens {max_tokens} = {n_prompt + max_tokens}, "
        f"but the context of this model is {n_ctx} tokens; {remedy}"
    )
    raise ContextOverflowError(message, code="context_overflow")
