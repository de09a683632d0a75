"""`load()` and `Model`: the Python face of a loaded model.

Checks arguments, turns text into ids and back. Knows nothing of kernels, KV pages or terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from .adapter import Adapter, native_adapter
from .async_calls import AsyncModel
from .batch import AT_ONCE, TokenBatch, generate_several, stream_several
from .closing import Closing
from .completions.calls import CompletionCalls
from .embedding import EmbedOptions, Pooling, embed_ids, parse_defaults, prompts_of
from .errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from .locate import resolve
from .model_info import model_info
from .opening import Opened
from .options import (
    DEFAULT_KV,
    DEFAULT_KV_CACHE_DISK_BYTES,
    GenerateArguments,
    GenerateOptions,
    LoadOptions,
    Speculate,
    VerifyMode,
    check_standing,
    speculate_as,
)
from .results import Generation, ModelInfo
from .scoring import Pair, Score, score_pairs, split_texts
from .stream import SLICE_MS, TokenStream, checked_ids
from .streamers import Streamer, drive

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

    from . import _native
    from ._native_types import KvFigures
    from .chat import Chat, OverflowPolicy
    from .signature import RequireSignature


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = "cpu",
    threads: int | None = None,
    kv: str = DEFAULT_KV,
    max_memory: int | None = None,
    verify: VerifyMode = "once",
    n_ctx: int | None = None,
    prefix_cache: int | None = None,
    latency_budget_ms: float | None = None,
    kv_cache_dir: str | os.PathLike[str] | None = None,
    kv_cache_disk_bytes: int = DEFAULT_KV_CACHE_DISK_BYTES,
    speculate: Speculate | None = None,
    draft_model: str | os.PathLike[str] | Model | None = None,
    draft_layers: int = 0,
    require_signature: RequireSignature = None,
) -> Model:
    """Open a `.edge` file. `"demo"` is the small model that comes with edgellm.

    The file is mapped, not read; see `LoadOptions` for what each argument means; with a
    `draft_model` or `draft_layers` texts are guessed unless `speculate` is False. Raises a class
    of `edgellm.errors`: FormatError, IntegrityError, UnsupportedError, MemoryBudgetError, and
    DeviceError where `backend="cuda"`, "metal" or "vulkan" finds no GPU (docs/backends.md).
    """
    options = LoadOptions(
        backend,
        threads,
        kv,
        max_memory,
        verify,
        n_ctx,
        prefix_cache,
        latency_budget_ms,
        kv_cache_dir,
        kv_cache_disk_bytes,
        speculate_as(speculate, draft_model is not None or draft_layers > 0),
        draft_model,
        draft_layers,
        require_signature,
    )
    return Model(resolve(path), options)


class Model(AsyncModel, CompletionCalls, Closing):
    """A loaded model. Threads may share it, and then share its steps. Make it with `load()`.

    A context manager: leaving the block closes it. A child of fork() may go on using it.
    """

    def __init__(self, path: Path, options: LoadOptions) -> None:
        self._path = path
        self._options = options
        self._native_tokenizer: _native.Tokenizer | None = None  # without waiting for its turn
        self._opened = Opened(path, options)
        self._native = self._opened.native

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        """Ids of `text`. `special=False`: nothing in the text can become a special token.
        `bos`: put in front what the model expects there."""
        return self._tokenizer().encode(text, special, bos)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return self._tokenizer().decode(ids)

    def load_adapter(self, path: str | os.PathLike[str]) -> Adapter:
        """A LoRA adapter for this model: a file of `edgellm convert --base`, or a PEFT directory,
        which needs `edgellm[convert]`. Any number may be loaded; see docs/ADAPTERS.md.

        FormatError: a broken file, or an adapter of another model. UnsupportedError: what it asks
        for and is not honoured. IntegrityError, also where the model was loaded with
        `require_signature` and this file is not signed likewise; MemoryBudgetError.
        """
        return Adapter(self._native, Path(path), self._path, self._opened.signers)

    def logits(
        self, ids: Sequence[int], *, adapter: Adapter | None = None
    ) -> npt.NDArray[np.float32]:
        """Raw scores of the next token after each of `ids`: float32 [n_tokens, n_vocab]."""
        import numpy as np

        from . import _native

        prompt = checked_ids(ids, self._native.n_vocab, "ids")
        n_tokens, n_ctx = len(prompt), self._native.n_ctx_train
        if n_tokens == 0:
            raise InvalidArgumentError("logits() needs at least one id", code="invalid_argument")
        if n_tokens > n_ctx:
            message = f"{n_tokens} ids, but the context of this model is {n_ctx} tokens"
            raise ContextOverflowError(message, code="context_overflow")
        session = _native.Session(
            self._native, n_tokens, native_adapter(adapter), reuse_prefix=False
        )
        try:
            session.append(prompt)
            scores = np.empty((n_tokens, self._native.n_vocab), np.float32)
            n_done = 0
            while n_done < n_tokens:
                rows = session.run_with_logits(SLICE_MS)
                scores[n_done : n_done + len(rows)] = rows
                n_done += len(rows)
        finally:
            session.close()
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
        """One vector for each text, or for the text of these ids: float32 [n_texts, d_model].

        `pooling`: "mean" of all tokens, "last" or "cls", the first; None: as the model's author
        says, else "last". `normalize`: to length 1; None: as the author says, else yes.
        `truncate`: cut a text that is too long instead of refusing it. `adapter`: one of
        `load_adapter()`. `priority`: as for `stream()`; a namespace is not needed, since embeddings
        neither find nor leave KV. docs/EMBEDDINGS.md.
        """
        check_standing(priority)
        defaults = parse_defaults(self._native.blob("embedding"), self._path)
        options = EmbedOptions.chosen(
            defaults,
            self._native.n_ctx_train,
            pooling=pooling,
            normalize=normalize,
            truncate=truncate,
        )
        prompts = prompts_of(texts, self._tokenizer, options)
        return embed_ids(self._native, prompts, options, native_adapter(adapter), priority)

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> TokenStream:
        """Generate token by token, at most `max_tokens`; see `GenerateOptions` for what each
        argument means, and `SamplingRules` for penalties, DRY, XTC, typical_p, logit_bias,
        min_tokens and ignore_eos.

        `adapter`: one of `load_adapter()`, through which prompt and text go.

        Everything is checked here, before any work; the prompt is processed by the first `next()`.
        Stop early by leaving the loop and calling `close()`, or by `cancel()` from any thread.
        """
        options = GenerateOptions.of(arguments)
        ids = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        return TokenStream(self._native, ids, options, adapter=native_adapter(adapter))

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        adapter: Adapter | None = None,
        streamer: Streamer | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> Generation:
        """Generate to the end; the same arguments as `stream()`. `streamer` is handed the ids as
        they come: one of transformers', or a `TextStreamer`."""
        ids = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        with self.stream(ids, adapter=adapter, **arguments) as stream:
            return stream.result() if streamer is None else drive(stream, ids, streamer)

    def generate_n(
        self,
        prompt: str | Sequence[int],
        n: int,
        *,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> list[Generation]:
        """`n` samples of one prompt, which is processed once. Sample i is what `generate()` gives
        with the seed (seed + i) modulo 2**64; the arguments are those of `generate()`."""
        options = GenerateOptions.of(arguments)
        ids = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        return generate_several(self._native, ids, options, n, native_adapter(adapter))

    def stream_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        at_once: int = AT_ONCE,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> TokenBatch:
        """`stream()` of every prompt: yields (index of the prompt, token). They go through the
        model together, `at_once` of them at a time, which is several times as fast as one after
        the other; every text is the one that its prompt alone gives. docs/KV.md.

        All prompts are checked here, before any work. The arguments are those of `stream()`.
        """
        options = GenerateOptions.of(arguments)
        every = [self.tokenize(p) if isinstance(p, str) else p for p in prompts]
        return stream_several(self._native, every, options, at_once, native_adapter(adapter))

    def generate_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        at_once: int = AT_ONCE,
        adapter: Adapter | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> list[Generation]:
        """`generate()` of every prompt, in their order; see `stream_batch()`. The error of one is
        raised when all others are over; take `stream_batch()` to have their tokens all the same."""
        with self.stream_batch(prompts, at_once=at_once, adapter=adapter, **arguments) as batch:
            return batch.results()

    def score(
        self,
        prompt: str | Sequence[int],
        continuations: Sequence[str | Sequence[int]],
        *,
        adapter: Adapter | None = None,
        priority: int = 0,
        namespace: str = "",
    ) -> list[Score]:
        """How likely each continuation is right after the prompt, which is processed once.
        `priority`, `namespace`: as for `stream()`. Texts are tokenized together with the prompt,
        ids are taken as they are; where one side is ids, the other's text is tokenized by itself.
        InvalidArgumentError, ContextOverflowError.
        """
        pairs = [self._pair(prompt, continuation) for continuation in continuations]
        check_standing(priority, namespace)
        return score_pairs(
            self._native, pairs, native_adapter(adapter), priority=priority, namespace=namespace
        )

    def _pair(self, prompt: str | Sequence[int], more: str | Sequence[int]) -> Pair:
        if isinstance(prompt, str) and isinstance(more, str) and more:
            return split_texts(self._tokenizer(), lambda: self.tokenize(""), prompt, more)
        before = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        return before, self.tokenize(more, bos=False) if isinstance(more, str) else more

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
        """A conversation whose turns reuse one KV cache; see `Chat`.

        `template`: None for the one in the file, "chatml", a template's text, or a Path.
        `tools`, `documents`, `variables`: handed to the template. `n_ctx`: None for all that the
        model has. `policy`: what to do when the context is full; None is an error, and
        "drop_oldest_turns" says in the result what it dropped, "shift" lets old tokens go one by
        one, at the price that later ones carry traces of them. `adapter`: one of `load_adapter()`.
        `namespace`: as for `stream()`, of all its turns; `priority` is each turn's own.
        """
        from .chats import new_chat  # not for those who only want a text continued

        return new_chat(
            self._native,
            self._tokenizer(),
            self._path,
            template=template,
            variables=variables,
            system=system,
            tools=tools,
            documents=documents,
            n_ctx=n_ctx,
            policy=policy,
            adapter=adapter,
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
        """The chat that `Chat.save()` has written, with its KV, so that nothing is computed again:
        the next tokens are those that the saved one would have given.

        `template`, `adapter`: as for `chat()`, those that the chat was saved with; `namespace`: the
        one that it goes on in, which files do not tell. `kv=False`: the
        conversation only, which any model can go on with; its first reply reads all of it.

        SessionError: a broken file, or one that was saved with another model, tokenizer, template,
        adapter or KV format; the message names what differs.
        """
        from .chats import restored_chat

        return restored_chat(
            self._native,
            self._tokenizer(),
            self._path,
            path,
            kv=kv,
            template=template,
            adapter=adapter,
            namespace=namespace,
        )

    def kv_figures(self) -> KvFigures:
        """Bytes of KV: reserved, kept for texts that begin alike, idle, on disk; tokens reused."""
        return self._native.kv_figures

    def trim(self, n_bytes: int | None = None) -> int:
        """Give back `n_bytes` of KV that no text holds, or all of it, to `kv_cache_dir` if there is
        one; returns how many it were."""
        if n_bytes is None:
            return self._native.trim()
        if n_bytes < 0:
            message = f"n_bytes must be 0 or more, but is {n_bytes}"
            raise InvalidArgumentError(message, code="invalid_argument")
        return self._native.trim(min(n_bytes, 2**64 - 1))

    def info(self) -> ModelInfo:
        """What this model is, where it came from and what it costs."""
        return model_info(self._native, self._path)

    def close(self) -> None:
        """Free the model. A generation under way in another thread raises Cancelled. Idempotent."""
        self._opened.close()
        self._native_tokenizer = None

    def _tokenizer(self) -> _native.Tokenizer:
        tokenizer = self._native_tokenizer
        if tokenizer is not None:
            return tokenizer
        tokenizer = self._native_tokenizer = self._native.tokenizer
        if tokenizer is None:
            message = f"{self._path} holds no tokenizer; give token ids instead of text"
            raise UnsupportedError(message, code="tokenizer_unsupported")
        return tokenizer
