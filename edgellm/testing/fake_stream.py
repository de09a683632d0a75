"""Texts and chats of a fake model: the real ones, over a session that computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ..chat import Chat
from ..confidence import TokenSignals
from ..drafting import DraftFigures
from ..lease import SessionLease
from ..options import GenerateOptions
from ..results import Stats, Token
from ..stops import StopMatcher
from ..stream import TokenStream, check_room, checked_ids
from ..watching import PrefillWatch
from .fake_native import END_ID, FakeDecoder, FakeNative, FakeSession

if TYPE_CHECKING:
    from .. import _native
    from ..transcript import Turn

LOGPROB = -0.5  # of every token
SIGNALS = TokenSignals(margin=0.5, entropy=1.0, logit=LOGPROB, log_z=0.0)


class _NoDrafting:
    def figures(self, session: object) -> DraftFigures:
        return DraftFigures()

    def end(self, session: object) -> None:
        pass


class FakeStream(TokenStream):
    """The reply to a prompt, byte by byte; limits, stops and cancel() are the real ones."""

    def __init__(
        self,
        model: _native.Model,
        prompt_ids: Sequence[int],
        options: GenerateOptions,
        lease: SessionLease | None = None,
        adapter: _native.Adapter | None = None,
    ) -> None:
        from threading import RLock

        native = cast("FakeNative", model)
        self._session = None
        self._finish_reason = None
        self._cancelled = False
        self._kept = None
        self._tokens = []
        self._ended_by_id = False
        self._prompt = checked_ids(prompt_ids, native.n_vocab, "prompt")
        self._options, self._lease, self._lock = options, lease, RLock()
        n_ctx = native.n_ctx_train
        is_endless = options.window > 0
        if lease is not None:
            lease.check(options)
            n_ctx, is_endless = lease.session.n_ctx, lease.is_endless
        n_new = 1 if is_endless else options.max_tokens
        check_room(len(self._prompt), n_new, n_ctx, is_endless)
        ends = native.eos_ids if options.stop_ids is None else options.stop_ids
        self._stop_ids = frozenset(checked_ids(ends, native.n_vocab, "stop_ids"))
        self._constraint = None
        self._stops = StopMatcher(options.stop)
        self._decoder = cast("_native.StreamDecoder", FakeDecoder())
        self._drafting = cast("Any", _NoDrafting())
        if lease is None:
            session = FakeSession(native, n_ctx)
            session.append(self._prompt)
            self._session = cast("_native.Session", session)
        else:
            lease.begin(self._prompt)
            self._session = lease.session
        told = options.on_prefill
        self._watch = None if told is None else PrefillWatch(told, self.n_prompt)
        if options.cancel is not None:
            options.cancel.attach(self)
        reply = native.reply(native.tokenizer.decode(self._prompt, special=True))
        self._reply = [*native.tokenizer.encode(reply), END_ID]

    def _step(self, session: _native.Session) -> Token:
        n_done = len(self._tokens)
        if n_done > 0:
            session.append([self._tokens[-1].id])
        session.run()
        self.report(session)
        token_id = self._reply[n_done] if n_done < len(self._reply) else END_ID
        n_best = self._options.logprobs
        others = ((token_id + n) % END_ID for n in range(1, n_best))
        best = ((token_id, LOGPROB), *((other, 4 * LOGPROB) for other in others))
        signals = SIGNALS if self._options.signals else None
        return self._add(Token(token_id, "", LOGPROB, best[:n_best], signals=signals))

    @property
    def stats(self) -> Stats:
        """Counts; there are no times."""
        n_held = 0 if self._lease is None else self._lease.n_held
        return Stats(len(self._prompt), n_held, len(self._tokens), 0.0, 0.0, 0.0, 0)


class FakeChat(Chat):
    """A real chat but for its session and what is said."""

    _stream_type = FakeStream

    def _new_session(self, n_ctx: int, namespace: str) -> _native.Session:
        return cast("_native.Session", FakeSession(cast("FakeNative", self._model), n_ctx))

    def _pending_text(self, turn: Turn) -> str:
        return ""
