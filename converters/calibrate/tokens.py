"""Calibration tokens: windows of equal length from text files, chat logs and models' own text.

A file `*.jsonl` holds one object a line: {"text": "..."} or a chat log {"messages": [...]}, which
goes through the model's own template. From a converted model `*.edge`, documents are sampled. Any
other file is text. Documents are taken in an order that depends only on their number, until there
are enough tokens. Knows no model beyond its tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, InvalidArgumentError

from ..recipe import CalibrationOptions
from .samples import OwnText

if TYPE_CHECKING:
    from edgellm._native import Tokenizer
    from edgellm.chat_template import ChatTemplate

TEXT_CHUNK_BYTES = 16384  # of a text file: about how much makes a document
MAX_LINE_BYTES = 16 << 20
DOCUMENT_WINDOWS = 4  # no document gives more than this, so that none dominates

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CalibrationTokens:
    """windows: [n_windows, window_tokens] int32."""

    windows: Tokens

    def __post_init__(self) -> None:
        if self.windows.ndim != 2 or self.windows.size == 0:
            raise InvalidArgumentError("no calibration tokens", code="invalid_argument")

    @property
    def digest(self) -> str:
        """SHA-256 over shape and little-endian tokens."""
        shape = "x".join(map(str, self.windows.shape)).encode()
        return hashlib.sha256(shape + self.windows.astype("<i4").tobytes()).hexdigest()


def read_tokens(
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
    options: CalibrationOptions,
    *,
    at_most: bool = False,
) -> CalibrationTokens:
    """at_most: as many whole windows as the files have, where that is fewer.

    FormatError names the file and line that is not what it should be, and says how many tokens
    are missing when the files are too short.
    """
    wanted = options.n_windows * options.window_tokens
    places = [place for path in paths for place in _documents(path, options.n_windows)]
    ids: list[int] = []
    with ExitStack() as stack:
        encode = _Encoder(tokenizer, template, options.window_tokens, stack)
        for index in np.random.default_rng(0).permutation(len(places)):
            ids += encode(places[index])[: DOCUMENT_WINDOWS * options.window_tokens]
            if len(ids) >= wanted:
                windows = np.array(ids[:wanted], dtype=np.int32)
                return CalibrationTokens(windows.reshape(options.n_windows, options.window_tokens))
    n_windows = len(ids) // options.window_tokens
    if at_most and n_windows:
        whole = np.array(ids[: n_windows * options.window_tokens], dtype=np.int32)
        return CalibrationTokens(whole.reshape(n_windows, options.window_tokens))
    raise FormatError(
        f"{', '.join(map(str, paths)) or 'no file'}: {len(ids)} calibration tokens, "
        f"{options.n_windows} windows of {options.window_tokens} need {wanted}: add text, or ask "
        "for fewer windows",
        code="file_too_small",
    )


Place = tuple[Path, int, int]  # file, offset, bytes; of a model: file, number of the sample, 0


def _documents(path: Path, n_samples: int) -> Iterator[Place]:
    """Lines of a .jsonl; of a text file, runs of whole lines of about TEXT_CHUNK_BYTES."""
    if path.suffix == ".edge":
        yield from ((path, index, 0) for index in range(n_samples))
        return
    smallest = 1 if path.suffix == ".jsonl" else TEXT_CHUNK_BYTES
    begin = end = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                if len(line) > MAX_LINE_BYTES:
                    raise FormatError(
                        f"{path}, byte {end}: a line of more than {MAX_LINE_BYTES} bytes",
                        code="json_too_large",
                    )
                end += len(line)
                if end - begin >= smallest:
                    if line.strip() or smallest > 1:
                        yield path, begin, end - begin
                    begin = end
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", code="file_not_found") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    if end > begin:
        yield path, begin, end - begin


def _read(path: Path, offset: int, n_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(n_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        place = offset + error.start
        raise FormatError(f"{path}: not UTF-8 at byte {place}", code="json_syntax") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error


class _Encoder:
    """Documents to token ids. Models that are sampled are closed with `stack`."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        window_tokens: int,
        stack: ExitStack,
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._window_tokens, self._stack = window_tokens, stack
        self._models: dict[Path, OwnText] = {}

    def __call__(self, place: Place) -> list[int]:
        path, offset, n_bytes = place
        if path.suffix == ".edge":
            return self._model(path).ids(offset)
        text = _read(path, offset, n_bytes)
        if path.suffix != ".jsonl":
            return self._tokenizer.encode(text)
        where = f"{path}, byte {offset}"
        return record_ids(read_record(text, where), where, self._tokenizer, self._template)

    def _model(self, path: Path) -> OwnText:
        if path not in self._models:
            self._models[path] = OwnText(path, self._window_tokens)
            self._stack.callback(self._models[path].close)
        return self._models[path]


def read_record(line: str, where: str) -> dict[str, Any]:
    """The object of a line of a .jsonl, which has a text or messages."""
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not a JSON object: {error}", code="json_syntax") from error
    if isinstance(record, dict) and (
        isinstance(record.get("text"), str) or isinstance(record.get("messages"), list)
    ):
        return record
    raise FormatError(
        f'{where}: neither {{"text": "..."}} nor {{"messages": [...]}}', code="json_type"
    )


def record_ids(
    record: dict[str, Any], where: str, tokenizer: Tokenizer, template: ChatTemplate | None
) -> list[int]:
    """The tokens of what read_record() gave; a chat log goes through the template."""
    if isinstance(record.get("text"), str):
        return tokenizer.encode(record["text"])
    if template is None:
        raise FormatError(
            f"{where}: a chat log, but the checkpoint has no chat template; use "
            '{"text": ...} lines',
            code="template_missing",
        )
    return [
        token
        for piece in template.pieces(record["messages"])
        for token in tokenizer.encode(piece.text, special=not piece.plain, bos=False)
    ]
