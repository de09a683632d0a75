"""Several generations at once, from one thread: their tokens share the steps of the model.

Every token is the one that the generation alone would give. Knows streams and native sessions,
nothing of prompts, text and files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from .closing import Closing
from .errors import Cancelled, EdgeError, InvalidArgumentError, MemoryBudgetError
from .lease import SessionLease
from .options import GenerateOptions
from .pacing import paced
from .results import Generation, Token
from .stream import SLICE_MS, TokenStream, check_room, checked_ids

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from . import _native
    from .constraint import Words

# As many rows as go through a weight while it is unpacked once: more at a time gain little.
AT_ONCE = 16
_MOST_AT_ONCE = 1024


class TokenBatch(Closing):
    """Iterator over `(index, Token)` of several generations, in the order the tokens are made.

    Up to `at_once` of them run; the next joins when one ends, or when the memory cap has room. One
    that fails ends alone: the error comes when all others are over. For one thread at a time,
    except `cancel()`. Memory goes back at the end, by `close()` or at the end of a `with` block.
    """

    def __init__(self, n: int, start: Callable[[int], TokenStream], at_once: int) -> None:
        if not 1 <= at_once <= _MOST_AT_ONCE:
            message = f"at_once must be in 1..{_MOST_AT_ONCE}, but is {at_once}"
            raise InvalidArgumentError(message, code="invalid_argument")
        self._lock = Lock()  # of what waits: cancel() takes from it
        self._start = start
        self._at_once = at_once
        self._coming = deque(range(n))
        self._running: dict[int, TokenStream] = {}
        self._streams: dict[int, TokenStream] = {}  # all that were started
        self._ready: deque[tuple[int, Token]] = deque()
        self._error: EdgeError | None = None
        try:
            self._admit()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[tuple[int, Token]]:
        return self

    def __next__(self) -> tuple[int, Token]:
        try:
            while not self._ready:
                self._admit()
                if not self._running:
                    break
                self._advance()
        except BaseException:
            self.close()
            raise
        if self._ready:
            return self._ready.popleft()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def cancel(self, index: int | None = None) -> None:
        """End one generation early, or all, from any thread; within about 100 ms."""
        with self._lock:
            if index is None:
                self._coming.clear()
            elif index in self._coming:
                self._coming.remove(index)
        for at, stream in list(self._running.items()):
            if index is None or at == index:
                stream.cancel()

    def close(self) -> None:
        """Free all sequences now. Ends unfinished texts as "cancelled". Idempotent."""
        self._coming.clear()
        for stream in self._running.values():
            stream.close()
        self._running.clear()

    def results(self) -> list[Generation]:
        """Run to the end and return everything, in the order of the prompts; none but those that
        were started before cancel() or close()."""
        for _ in self:
            pass
        return [self._streams[index].result() for index in sorted(self._streams)]

    def _admit(self) -> None:
        while len(self._running) < self._at_once:
            with self._lock:
                if not self._coming:
                    return
                index = self._coming[0]
                try:
                    stream = self._start(index)
                except MemoryBudgetError:
                    if not self._running:
                        raise
                    return  # there is room when one of them ends
                self._coming.popleft()
                self._running[index] = self._streams[index] = stream

    def _advance(self) -> None:
        """A step or a few, and the tokens of those that are ready for one."""
        from . import _native

        started = perf_counter()
        lanes: list[tuple[int, TokenStream, _native.Session]] = []
        for index, stream in list(self._running.items()):
            session = stream.session
            if session is None or stream.is_cancelled:
                self._end(index)
                continue
            while (token := stream.take_forced()) is not None:
                self._ready.append((index, token))
            if stream.finish_reason is not None:
                self._end(index)
                continue
            stream.feed(session)
            lanes.append((index, stream, session))
        sessions = [session for _, _, session in lanes]
        outcomes = paced(
            lambda slice_ms: _native.run_batch(sessions, slice_ms),
            SLICE_MS,
            lambda: all(stream.is_cancelled for _, stream, _ in lanes),
        )
        ready: list[tuple[int, TokenStream, _native.Session]] = []
        for lane, (is_done, _, error) in zip(lanes, outcomes, strict=True):
            if error is not None:
                self._end(lane[0], error)
            elif is_done:
                ready.append(lane)
            else:
                lane[1].report(lane[2])
                lane[1].spend(perf_counter() - started)
        self._sample(ready, started)

    def _sample(
        self, ready: Sequence[tuple[int, TokenStream, _native.Session]], started: float
    ) -> None:
        from . import _native

        asked: list[tuple[int, TokenStream, _native.Session]] = []
        choices: list[tuple[_native.SamplerParams, Words | None]] = []
        for lane in ready:
            try:
                choices.append(lane[1].choice())
                asked.append(lane)
            except EdgeError as error:  # of its grammar
                self._end(lane[0], error)
        chosen = _native.sample_batch(
            [session for _, _, session in asked],
            [params for params, _ in choices],
            [stream.n_prompt for _, stream, _ in asked],
            [allowed for _, allowed in choices],
        )
        for (index, stream, session), choice, one in zip(asked, choices, chosen, strict=True):
            params, allowed = choice
            try:
                pair = one or session.sample(params, n_prompt=stream.n_prompt, allowed=allowed)
                self._ready.append((index, stream.take(session, pair, started)))
            except EdgeError as error:
                self._end(index, error)
                continue
            if stream.finish_reason is not None:
                self._end(index)

    def _end(self, index: int, error: EdgeError | None = None) -> None:
        stream = self._running.pop(index)
        stream.close()
        if error is None or (isinstance(error, Cancelled) and stream.is_cancelled):
            return
        error.add_note(f"in the generation for prompt {index}")
        self._error = self._error or error


def stream_several(
    model: _native.Model,
    prompts: Sequence[Sequence[int]],
    options: GenerateOptions,
    at_once: int,
    adapter: _native.Adapter | None = None,
) -> TokenBatch:
    """What separate streams of the prompts give; all are checked here."""
    every = [checked_ids(ids, model.n_vocab, f"prompt {at}") for at, ids in enumerate(prompts)]
    for prompt in every:
        check_room(len(prompt), options.max_tokens, model.n_ctx_train)
    return TokenBatch(
        len(every), lambda at: TokenStream(model, every[at], options, adapter=adapter), at_once
    )


def generate_several(
    model: _native.Model,
    prompt_ids: Sequence[int],
    options: GenerateOptions,
    n: int,
    adapter: _native.Adapter | None = None,
) -> list[Generation]:
    """`n` samples of one prompt, which is processed once: what separate generations with the seeds
    `options.sample_seed(i)` give."""
    from . import _native

    if not 1 <= n <= _MOST_AT_ONCE:
        message = f"n must be in 1..{_MOST_AT_ONCE}, but is {n}"
        raise InvalidArgumentError(message, code="invalid_argument")
    prompt = checked_ids(prompt_ids, model.n_vocab, "prompt")
    check_room(len(prompt), options.max_tokens, model.n_ctx_train)
    # Every sample processes the last token, to have logits of its own.
    n_most = len(prompt) + options.max_tokens
    base = _native.Session(model, n_most, adapter, namespace=options.namespace)
    base.set_priority(options.priority)
    base = processed(base, prompt[:-1])

    def start(at: int) -> TokenStream:
        session = base.fork()
        lease = SessionLease(session, ended=lambda _: session.close())
        try:
            one = replace(options, seed=options.sample_seed(at), namespace="")  # the session's
            stream = TokenStream(model, prompt, one, lease)
        except BaseException:
            session.close()
            raise
        if at == 0:  # the prompt was processed for the first of them
            lease.n_held = base.stats["n_reused_tokens"]
            lease.n_from_disk = base.stats["n_disk_tokens"]
        return stream

    try:
        with TokenBatch(n, start, AT_ONCE) as batch:
            return batch.results()
    finally:
        base.close()


def processed(session: _native.Session, ids: list[int]) -> _native.Session:
    """The session, which has processed `ids`, to be forked; it is closed on an error."""
    try:
        session.append(ids)
        while not paced(session.run, SLICE_MS):
            pass
    except BaseException:
        session.close()
        raise
    return session


def run_lanes(
    n: int,
    start: Callable[[int], _native.Session],
    keep: Literal["logits", "hidden"],
    take: Callable[[int, npt.NDArray[np.float32]], None],
) -> None:
    """Process `n` sequences whole, several at once. `start(index)` makes one, with its tokens
    queued; `take(index, rows)` gets what `keep` says of each of these, in order, in one piece or
    several."""
    from . import _native

    coming = deque(range(n))
    running: dict[int, _native.Session] = {}
    try:
        while coming or running:
            while coming and len(running) < AT_ONCE:
                try:
                    running[coming[0]] = start(coming[0])
                except MemoryBudgetError:
                    if not running:
                        raise
                    break  # there is room when one of them ends
                coming.popleft()
            sessions = list(running.values())
            outcomes = paced(partial(_native.run_batch, sessions, keep=keep), SLICE_MS)
            for index, (is_done, rows, error) in zip(list(running), outcomes, strict=True):
                if error is not None:
                    raise error
                if rows is not None and len(rows) > 0:
                    take(index, rows)
                if is_done:
                    running.pop(index).close()
    finally:
        for session in running.values():
            session.close()
