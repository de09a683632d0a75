"""A model under evaluation: opened once, run window by window, compared by its vocabulary.

Uses the native runtime directly, because an evaluation wants rows of logits and not text. Every
row is bit-identical for any block size and number of threads, so how the work is cut never shows
in a result.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..closing import Closing
from ..errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from ..locate import resolve
from ..opening import Opened
from ..options import EVALUATION_KV, LoadOptions
from ..stream import SLICE_MS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .. import _native
    from ..signature import RequireSignature

_BLOCK_LOGITS = 1 << 21  # in float64 and with a few temporaries: about 100 MB
_MIN_BLOCK_ROWS, _MAX_BLOCK_ROWS = 16, 128


class EvaluatedModel(Closing):
    """One `.edge` file, loaded. A context manager: leaving the block closes it.

    name: what reports call it; by default that of its file, or its name in the store.
    require_signature: as of load(). Raises what loading raises: FormatError, IntegrityError,
    UnsupportedError or MemoryBudgetError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        max_memory: int | None = None,
        kv: str = EVALUATION_KV,
        name: str | None = None,
        require_signature: RequireSignature = None,
    ) -> None:
        self.path = resolve(path)
        is_stored = isinstance(path, str) and self.path.parent.name == "objects"
        self.name = name or (str(path) if is_stored else self.path.name)
        options = LoadOptions(
            threads=threads,
            max_memory=max_memory,
            kv=kv,
            require_signature=require_signature,
        )
        self.native: _native.Model = Opened(self.path, options).native

    @property
    def root(self) -> str:
        return self.native.root

    @property
    def n_vocab(self) -> int:
        """Logits per token; the tokenizer may know fewer."""
        return self.native.n_vocab

    @property
    def tokenizer(self) -> _native.Tokenizer:
        tokenizer = self.native.tokenizer
        if tokenizer is None:
            message = f"{self.path} holds no tokenizer; convert it again from a checkpoint with one"
            raise UnsupportedError(message, code="tokenizer_unsupported")
        return tokenizer

    @cached_property
    def vocabulary_sha256(self) -> str:
        """Over every token as the vocabulary spells it, in order of ids, and whether it is special.

        Equal digests mean that an id stands for the same text in both models.
        """
        digest = hashlib.sha256()
        for token_id in range(self.tokenizer.n_vocab):
            spelled = self.tokenizer.token_text(token_id).encode()
            special = self.tokenizer.is_special(token_id)
            digest.update(struct.pack("<I?", len(spelled), special) + spelled)
        return digest.hexdigest()

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What the tokenizer puts in front of a text: [BOS], or nothing."""
        plain = self.tokenizer.encode("a", special=False, bos=False)
        whole = self.tokenizer.encode("a", special=False, bos=True)
        return whole[: len(whole) - len(plain)]

    def session(self, n_ctx: int) -> _native.Session:
        """A sequence of at most `n_ctx` tokens; ContextOverflowError beyond the model's context."""
        from .. import _native

        if n_ctx > self.native.n_ctx_train:
            message = (
                f"{n_ctx} tokens are needed and the context of {self.name} is "
                f"{self.native.n_ctx_train}; lower --n-ctx or shorten the text"
            )
            raise ContextOverflowError(message, code="context_overflow")
        return _native.Session(self.native, n_ctx, reuse_prefix=False)

    def close(self) -> None:
        """Free the model. Idempotent."""
        self.native.close()


def run_tokens(session: _native.Session, ids: Sequence[int]) -> None:
    """Process `ids` and keep no logits but the last ones."""
    if not ids:
        return
    session.append(ids)
    while not session.run(SLICE_MS):
        pass


def token_logits(session: _native.Session, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """Process `ids`; the logits after each of them: [len(ids), n_vocab]."""
    import numpy as np

    if not ids:
        raise InvalidArgumentError("token_logits() needs at least one id", code="invalid_argument")
    session.append(ids)
    parts = [session.run_with_logits(SLICE_MS)]
    while session.pending:
        parts.append(session.run_with_logits(SLICE_MS))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def row_blocks(n_rows: int, n_vocab: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the blocks in which rows of a window are scored, to bound memory.

    The same for every source of rows over one vocabulary, so two of them walk in step.
    """
    step = min(max(_BLOCK_LOGITS // n_vocab, _MIN_BLOCK_ROWS), _MAX_BLOCK_ROWS)
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)


def check_same_vocabulary(a: EvaluatedModel, b: EvaluatedModel) -> None:
    """UnsupportedError that names the first difference; KL needs one meaning for each id."""
    pair = f"{a.name} and {b.name}"
    advice = "only models with one vocabulary can be compared token by token"
    sizes = [
        ("logits per token", a.n_vocab, b.n_vocab),
        ("tokens in the tokenizer", a.tokenizer.n_vocab, b.tokenizer.n_vocab),
    ]
    for what, n_a, n_b in sizes:
        if n_a != n_b:
            message = f"{pair} differ in {what}: {n_a} and {n_b}; {advice}"
            raise UnsupportedError(message, code="vocabulary_mismatch")
    if a.vocabulary_sha256 == b.vocabulary_sha256:
        return
    first = next(i for i in range(a.tokenizer.n_vocab) if _token(a, i) != _token(b, i))
    message = f"{pair} differ at token {first}: {_token(a, first)} and {_token(b, first)}; {advice}"
    raise UnsupportedError(message, code="vocabulary_mismatch")


def _token(model: EvaluatedModel, token_id: int) -> str:
    special = " (special)" if model.tokenizer.is_special(token_id) else ""
    return f"{model.tokenizer.token_text(token_id)!r}{special}"
