"""`FakeModel`: the public surface of `Model`, without native code, a file or arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from ..adapter import Adapter
from ..batch import AT_ONCE, TokenBatch
from ..chat import Chat, OverflowPolicy
from ..chat_template import CHATML
from ..chats import new_chat
from ..embedding import EmbeddingDefaults, EmbedOptions, Pooling, prompts_of
from ..errors import InvalidArgumentError, UnsupportedError
from ..model import Model
from ..options import GenerateArguments, GenerateOptions, LoadOptions, check_standing
from ..results import Generation, ModelInfo, Token
from ..scoring import PromptScore, Score
from ..stream import TokenStream, check_room, checked_ids
from .fake_batch import FakeBatch
from .fake_native import FakeNative, FakeSessionFile, unit_vector
from .fake_stream import LOGPROB, FakeChat, FakeStream

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

    from .. import _native
    from ..opening import Opened

Replies = str | Sequence[str] | Mapping[str, str] | Callable[[str], str]
_DEFAULT_REPLY = "This is a reply."


@dataclass(frozen=True)
class FakeCall:
    """A text that was asked for: the prompt, special tokens spelled out, and what it was told."""

    prompt: str
    reply: str


class FakeModel(Model):
    """Says `replies`: one text; several, one for each prompt in turn, and the last one from then
    on; of a mapping that of the first key that the prompt holds; or what a function makes of the
    prompt. Every token is one byte; the same prompts give the same bytes.

    `calls` are the prompts so far. Limits, stop strings, errors of arguments, chats, completions
    and asyncio are the real ones; grammars are not followed, numbers mean nothing.
    """

    def __init__(
        self,
        replies: Replies = _DEFAULT_REPLY,
        *,
        n_ctx: int = 4096,
        template: str = CHATML,
        name: str = "fake",
    ) -> None:
        self.calls: list[FakeCall] = []
        self._replies = _chooser(replies)
        self._path = Path(f"{name}.edge")
        self._options = LoadOptions()
        native = FakeNative(self._reply, n_ctx, template)
        self._opened = cast("Opened", native)  # to be closed
        self._native = cast("_native.Model", native)
        self._native_tokenizer = None

    def load_adapter(self, path: str | os.PathLike[str]) -> Adapter:
        raise UnsupportedError(
            f"{path}: a fake model has no weights to adapt", code="feature_unsupported"
        )

    def logits(
        self, ids: Sequence[int], *, adapter: Adapter | None = None
    ) -> npt.NDArray[np.float32]:
        import numpy as np

        prompt = checked_ids(ids, self._native.n_vocab, "ids")
        if not prompt:
            raise InvalidArgumentError("logits() needs at least one id", code="invalid_argument")
        check_room(len(prompt), 0, self._native.n_ctx_train)
        columns = np.arange(self._native.n_vocab, dtype=np.float32)
        scores: npt.NDArray[np.float32] = -np.abs(columns - np.array(prompt, np.float32)[:, None])
        return scores

    def embed(
        self,
        texts: str | Sequence[str] | Sequence[int],
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        truncate: bool = False,
        adapter: Adapter | None = None,
        priority: int = 0,
    ) -> npt.NDArray[np.float32]:
        import numpy as np

        check_standing(priority)
        options = EmbedOptions.chosen(
            EmbeddingDefaults(),
            self._native.n_ctx_train,
            pooling=pooling,
            normalize=normalize,
            truncate=truncate,
        )
        prompts = prompts_of(texts, self._tokenizer, options)
        checked = [checked_ids(ids, self._native.n_vocab, name) for name, ids in prompts]
        return np.array([unit_vector(ids) for ids in checked], np.float32)

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> TokenStream:
        options = GenerateOptions.of(arguments)
        ids = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        return FakeStream(self._native, ids, options)

    def generate_n(
        self,
        prompt: str | Sequence[int],
        n: int,
        *,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> list[Generation]:
        if n < 1:
            raise InvalidArgumentError(f"n must be 1 or more, but is {n}", code="invalid_argument")
        return [self.generate(prompt, **arguments) for _ in range(n)]

    def stream_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        at_once: int = AT_ONCE,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> TokenBatch:
        return FakeBatch(len(prompts), lambda at: self.stream(prompts[at], **arguments), at_once)

    def score(
        self,
        prompt: str | Sequence[int],
        continuations: Sequence[str | Sequence[int]],
        *,
        adapter: Adapter | None = None,
        priority: int = 0,
        namespace: str = "",
    ) -> list[Score]:
        check_standing(priority, namespace)
        pairs = [self._pair(prompt, continuation) for continuation in continuations]
        return [
            Score(list(more), [LOGPROB] * len(more), LOGPROB * len(more), True) for _, more in pairs
        ]

    def chat(
        self,
        system: str | None = None,
        *,
        template: str | Path | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        n_ctx: int | None = None,
        policy: OverflowPolicy | None = None,
        variables: Mapping[str, Any] | None = None,
        adapter: Adapter | None = None,
        namespace: str = "",
    ) -> Chat:
        return new_chat(
            self._native,
            self._tokenizer(),
            self._path,
            kind=FakeChat,
            template=template,
            variables=variables,
            system=system,
            tools=tools,
            documents=documents,
            n_ctx=n_ctx,
            policy=policy,
            namespace=namespace,
        )

    def restore(
        self,
        path: str | os.PathLike[str],
        *,
        kv: bool = True,
        template: str | Path | None = None,
        adapter: Adapter | None = None,
        namespace: str = "",
    ) -> Chat:
        file = FakeSessionFile(path)
        saved = file.transcript
        chat = self.chat(
            saved.system,
            template=template,
            tools=saved.tools,
            documents=saved.documents,
            n_ctx=saved.n_ctx,
            policy=cast("OverflowPolicy | None", saved.policy),
            variables=saved.variables,
            namespace=namespace,
        )
        chat._resume(saved, cast("_native.SessionFile", file), kv=False)
        return chat

    def info(self) -> ModelInfo:
        native = self._native
        return ModelInfo(
            path=str(self._path),
            file_bytes=0,
            n_vocab=native.n_vocab,
            n_ctx=native.n_ctx_train,
            n_layers=0,
            n_parameters=0,
            weight_formats={},
            eos_ids=native.eos_ids,
            has_tokenizer=True,
            kv_format=self._options.kv,
            kv_bytes_per_token=0,
            kv_bytes=0,
            backend="fake",
            isa="none",
            threads=1,
            load_ms=0.0,
            verified_fraction=1.0,
            root=native.root,
        )

    def _together(self, n: int, start: Callable[[int], TokenStream]) -> Iterator[tuple[int, Token]]:
        return FakeBatch(n, start, AT_ONCE)

    def _prompt_scores(self, prompts: Sequence[Sequence[int]], n_top: int) -> list[PromptScore]:
        return [
            PromptScore([LOGPROB] * (len(ids) - 1), [((one, LOGPROB),)[:n_top] for one in ids[1:]])
            for ids in prompts
        ]

    def _reply(self, prompt: str) -> str:
        reply = self._replies(prompt)
        self.calls.append(FakeCall(prompt, reply))
        return reply


def _chooser(replies: Replies) -> Callable[[str], str]:
    if callable(replies):
        return replies
    if isinstance(replies, str):
        return lambda _: replies
    if isinstance(replies, Mapping):
        return lambda prompt: next(
            (r for key, r in replies.items() if key in prompt), _DEFAULT_REPLY
        )
    texts, turn = list(replies) or [_DEFAULT_REPLY], count()
    return lambda _: texts[min(next(turn), len(texts) - 1)]
