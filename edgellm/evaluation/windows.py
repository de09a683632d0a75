"""Text to windows of tokens, and which tokens of a window are scored.

The default is the convention of llama.cpp's perplexity tool, so that numbers can be laid side by
side: windows of n_ctx tokens without overlap, the first token of each replaced by BOS where the
tokenizer adds one, and only the tokens after the first n_ctx // 2 + 1 scored: every scored token
has at least half a window before it. Tokens after the last whole window are left out, and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import FormatError, InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .models import EvaluatedModel

BosMode = Literal["replace", "prepend", "none"]
MAX_TEXT_BYTES = 256 << 20


@dataclass(frozen=True)
class Text:
    """A text to be scored; `sha256` is over its UTF-8 bytes."""

    name: str
    content: str
    sha256: str


@dataclass(frozen=True)
class WindowRule:
    """How a text is cut.

    n_ctx: tokens of a window. n_skip: tokens at its start that are context only, at least 1; None:
    n_ctx // 2 + 1. bos: "replace" the first token of a window by what the tokenizer puts in front
    of a text (nothing, for many); "prepend" it, or else the model's BOS, to n_ctx - 1 tokens of
    text; "none". max_scored_tokens: of each text; rounded up to whole windows.
    """

    n_ctx: int = 512
    n_skip: int | None = None
    bos: BosMode = "replace"
    max_scored_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.n_ctx < 2:
            raise _invalid(f"n_ctx must be at least 2, but is {self.n_ctx}")
        if not 1 <= self.first_scored < self.n_ctx:
            raise _invalid(f"n_skip must be in 1..{self.n_ctx - 1}, but is {self.n_skip}")
        if self.bos not in get_args(BosMode):
            raise _invalid(f"bos must be one of {get_args(BosMode)}, but is {self.bos!r}")
        if self.max_scored_tokens is not None and self.max_scored_tokens < 1:
            message = f"max_scored_tokens must be at least 1, but is {self.max_scored_tokens}"
            raise _invalid(message)

    @property
    def first_scored(self) -> int:
        """Position in a window of the first token that is scored."""
        return self.n_ctx // 2 + 1 if self.n_skip is None else self.n_skip

    @property
    def n_scored(self) -> int:
        """Tokens scored in each window."""
        return self.n_ctx - self.first_scored


@dataclass(frozen=True)
class TextWindows:
    """The windows of one text: `ids` is int32 [n_windows, n_ctx]; `n_left_out` counts its tokens
    that stand in no window."""

    name: str
    sha256: str
    ids: npt.NDArray[np.int32]
    first_scored: int
    n_left_out: int

    @property
    def n_windows(self) -> int:
        return int(self.ids.shape[0])

    @property
    def n_ctx(self) -> int:
        return int(self.ids.shape[1])

    @property
    def n_scored(self) -> int:
        """Of each window."""
        return self.n_ctx - self.first_scored


def read_text(path: Path) -> Text:
    """A file of UTF-8 text, line ends as they are; FormatError where it is none."""
    try:
        if not path.is_file() and path.exists():
            raise FormatError(f"{path}: is not a regular file", "file_unreadable")
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        message = f"{path}: cannot read this text: {error.strerror}"
        raise FormatError(message, "file_unreadable") from error
    if len(data) > MAX_TEXT_BYTES:
        message = f"{path}: more than {MAX_TEXT_BYTES >> 20} MiB of text; cut it into several files"
        raise FormatError(message, "text_too_large")
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 at byte {error.start}; convert the text first"
        raise FormatError(message, "invalid_utf8") from None
    return Text(path.name, content, hashlib.sha256(data).hexdigest())


def text_of(name: str, content: str) -> Text:
    """A text that does not come from a file."""
    return Text(name, content, hashlib.sha256(content.encode()).hexdigest())


def cut_windows(model: EvaluatedModel, text: Text, rule: WindowRule) -> TextWindows:
    """The windows of `text`; InvalidArgumentError if it is shorter than one."""
    import numpy as np

    prefix = _prefix(model, rule)
    n_new = rule.n_ctx - (len(prefix) if rule.bos == "prepend" else 0)
    ids = model.tokenizer.encode(text.content, special=False, bos=rule.bos == "replace")
    n_windows = len(ids) // n_new
    if rule.max_scored_tokens is not None:
        n_windows = min(n_windows, -(-rule.max_scored_tokens // rule.n_scored))
    if n_windows == 0:
        message = (
            f"{text.name} has {len(ids)} tokens and a window is {n_new}; "
            "lower --n-ctx or give a longer text"
        )
        raise _invalid(message)
    windows = np.array(ids[: n_windows * n_new], np.int32).reshape(n_windows, n_new)
    if rule.bos == "replace":
        windows[:, : len(prefix)] = prefix
    elif rule.bos == "prepend":
        front = np.tile(np.array(prefix, np.int32), (n_windows, 1))
        windows = np.concatenate([front, windows], axis=1)
    return TextWindows(
        text.name, text.sha256, windows, rule.first_scored, len(ids) - n_windows * n_new
    )


def _prefix(model: EvaluatedModel, rule: WindowRule) -> Sequence[int]:
    if rule.bos == "none":
        return []
    prefix = model.prefix_ids
    if rule.bos == "prepend" and not prefix:
        bos_id = model.native.bos_id
        if bos_id is None:
            message = f"{model.name} has no BOS token to put before each window; use bos='none'"
            raise UnsupportedError(message, code="tokenizer_unsupported")
        prefix = [bos_id]
    if len(prefix) > rule.first_scored:
        message = (
            f"the tokenizer of {model.name} puts {len(prefix)} tokens in front of a text, "
            f"more than the {rule.first_scored} that are not scored"
        )
        raise _invalid(message)
    return prefix


def _invalid(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, code="invalid_argument")
