"""What stands in for the native model, tokenizer and session: one token is one byte of UTF-8."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..chat_template import CHATML_END
from ..errors import Cancelled, FormatError, InvalidArgumentError
from ..transcript import Transcript

if TYPE_CHECKING:
    from .._native_types import KvFigures

END_ID, START_ID, N_VOCAB, D_MODEL = 256, 257, 258, 64
SPECIALS = {CHATML_END: END_ID, "<|im_start|>": START_ID}
_BY_ID = {token_id: text for text, token_id in SPECIALS.items()}
_PATTERN = re.compile("|".join(map(re.escape, SPECIALS)))
_IDENTITY = {"tokenizer": "fake"}


class FakeTokenizer:
    """Bytes, and the two special tokens of ChatML."""

    n_vocab = N_VOCAB

    def encode(self, text: str, special: bool = False, bos: bool = True) -> list[int]:
        """Nothing stands in front of a text."""
        if not special:
            return list(text.encode())
        ids: list[int] = []
        end = 0
        for found in _PATTERN.finditer(text):
            ids += [*text[end : found.start()].encode(), SPECIALS[found.group()]]
            end = found.end()
        return ids + list(text[end:].encode())

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Bytes that are no UTF-8 become U+FFFD."""
        parts = (self.token_bytes(i) if i < END_ID or special else b"" for i in ids)
        return b"".join(parts).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Its byte, or its name."""
        return bytes([token_id]) if token_id < END_ID else _BY_ID[token_id].encode()

    def token_text(self, token_id: int) -> str:
        """Its character, or its name."""
        return chr(token_id) if token_id < END_ID else _BY_ID[token_id]

    def is_special(self, token_id: int) -> bool:
        """Whether texts cannot spell it."""
        return token_id >= END_ID


class FakeDecoder:
    """Ids in, whole characters out."""

    def __init__(self) -> None:
        self._held = b""

    def push(self, token_id: int) -> str:
        """What became whole."""
        if token_id >= END_ID:
            return ""
        self._held += bytes([token_id])
        try:
            text = self._held.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                return ""
            text = self._held.decode(errors="replace")
        self._held = b""
        return text

    def flush(self) -> str:
        """What is half a character, as U+FFFD."""
        held, self._held = self._held, b""
        return held.decode(errors="replace")


class FakeNative:
    """The facts of a model without weights. `reply`: what follows a prompt."""

    n_vocab, d_model = N_VOCAB, D_MODEL
    bos_id = None
    root = hashlib.sha256(b"edgellm.testing").hexdigest()
    closed = False

    def __init__(self, reply: Callable[[str], str], n_ctx: int, template: str) -> None:
        self.reply = reply
        self.n_ctx_train = n_ctx
        self.eos_ids = [END_ID]
        self.tokenizer = FakeTokenizer()
        self._template = template

    def blob(self, name: str) -> bytes | None:
        """The chat template alone."""
        return self._template.encode() if name == "chat_template" else None

    @property
    def kv_figures(self) -> KvFigures:
        """Nothing is kept."""
        from .._native_types import KvFigures as Figures

        figures: Any = dict.fromkeys(Figures.__annotations__, 0)
        return figures  # type: ignore[no-any-return]

    def trim(self, n_bytes: int = 0) -> int:
        """Nothing is kept."""
        return 0

    def check_open(self) -> None:
        """InvalidArgumentError after close()."""
        if self.closed:
            raise InvalidArgumentError("the model is closed", code="invalid_argument")

    def close(self) -> None:
        """Idempotent."""
        self.closed = True


class FakeSession:
    """Ids, and no KV."""

    n_dropped = n_recompute = 0
    identity = _IDENTITY

    def __init__(self, native: FakeNative, n_ctx: int) -> None:
        native.check_open()
        self._native = native
        self.n_ctx = n_ctx or native.n_ctx_train
        self.token_ids: list[int] = []
        self.stats = {"n_reused_tokens": 0, "n_disk_tokens": 0}
        self._is_cancelled = False

    @property
    def n_tokens(self) -> int:
        """All that were appended: nothing takes time."""
        return len(self.token_ids)

    @property
    def pending(self) -> int:
        """None is ever waiting."""
        return 0

    def most_tokens_after(self, n_tokens: int) -> int:
        """Nothing is ever taken out."""
        return self.n_ctx

    def append(self, ids: Sequence[int]) -> None:
        """More of the text."""
        self.token_ids += ids

    def rewind(self, n_tokens: int) -> None:
        """Keep the first ones."""
        del self.token_ids[n_tokens:]

    def run(self, budget_ms: float = 0.0) -> bool:
        """Cancelled once, after cancel() or when the model was closed."""
        if self._is_cancelled or self._native.closed:
            self._is_cancelled = False
            raise Cancelled("cancelled", code="cancelled")
        return True

    def stream_within(self, n_sink: int, window: int) -> None:
        """There is no KV to slide."""

    def compress(self, n_keep: int, **_: int) -> None:
        """There is no KV to drop."""

    def set_adapter(self, adapter: object) -> None:
        """There are no adapters but None."""

    def trim(self, n_bytes: int = 0) -> int:
        """Nothing is kept."""
        return 0

    def cancel(self) -> None:
        """The next run() raises."""
        self._is_cancelled = True

    def save(self, path: str | os.PathLike[str], note: bytes) -> None:
        """The conversation alone."""
        try:
            Path(path).write_bytes(note)
        except OSError as error:
            message = f"{os.fsdecode(path)}: cannot be written: {error.strerror}"
            raise FormatError(message, code="file_write_failed") from None

    def close(self) -> None:
        """Idempotent."""


class FakeSessionFile:
    """What a fake chat has saved. FormatError, SessionError."""

    identity = _IDENTITY

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fsdecode(path)
        try:
            self.note = Path(path).read_bytes()
        except OSError as error:
            message = f"{name}: cannot be read: {error.strerror}"
            raise FormatError(message, code="file_unreadable") from None
        self.transcript = Transcript.from_json(self.note, name)


def unit_vector(ids: Sequence[int]) -> list[float]:
    """Of length 1, the same for the same ids."""
    seed = hashlib.sha512(json.dumps(list(ids)).encode()).digest()
    values = [byte - 127.5 for byte in seed][:D_MODEL]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]
