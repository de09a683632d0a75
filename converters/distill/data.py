"""Texts as packed sequences: documents one behind the other, cut into windows of equal length.

A window's tokens know their document, which bounds what they attend to, and its kind ("books",
"code"; a file's name where a line names none), by which losses are reported. Documents stand in an
order that depends on their number and the seed only. Knows no model and no torch.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError

from ..calibrate.tokens import MAX_LINE_BYTES, TEXT_CHUNK_BYTES, read_record, record_ids

if TYPE_CHECKING:
    from edgellm._native import Tokenizer
    from edgellm.chat_template import ChatTemplate

Tokens = npt.NDArray[np.int32]
MAX_KINDS = 64


@dataclass(frozen=True)
class Packed:
    """tokens, documents: [n_windows, window_tokens] int32, the latter the number of the document of
    each. kind_of: [n_documents], places in `kinds`."""

    tokens: Tokens
    documents: Tokens
    kind_of: npt.NDArray[np.int16]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def digest(self) -> str:
        """SHA-256 over shape, tokens, documents and kinds."""
        hasher = hashlib.sha256(json.dumps([self.tokens.shape, self.kinds]).encode())
        for array in (self.tokens, self.documents, self.kind_of):
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    def batch(self, windows: npt.NDArray[np.int64]) -> Packed:
        """Some of the windows."""
        return Packed(self.tokens[windows], self.documents[windows], self.kind_of, self.kinds)

    def kinds_of_tokens(self) -> npt.NDArray[np.int16]:
        return self.kind_of[self.documents]


@dataclass(frozen=True)
class TextReader:
    """What turns texts into tokens. end_id: behind each document; -1: none."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    end_id: int


def pack(
    paths: Sequence[Path], reader: TextReader, window_tokens: int, max_tokens: int, seed: int
) -> Packed:
    """max_tokens: 0 for all. FormatError names the file and line that is not what it should be, and
    files that give no whole window."""
    texts = [text for path in paths for text in documents(path)]
    names = sorted({kind for _, kind, _ in texts})
    if len(names) > MAX_KINDS:
        raise FormatError(f"{len(names)} kinds of text, at most {MAX_KINDS}", code="json_type")
    ids: list[Tokens] = []
    kinds: list[int] = []
    n_tokens = 0
    for index in np.random.default_rng(seed).permutation(len(texts)):
        where, kind, record = texts[index]
        found = record_ids(record, where, reader.tokenizer, reader.template)
        ids.append(np.array(found + [reader.end_id] * (reader.end_id >= 0), dtype=np.int32))
        kinds.append(names.index(kind))
        n_tokens += len(ids[-1])
        if 0 < max_tokens <= n_tokens:
            break
    n_used = min(n_tokens, max_tokens or n_tokens) // window_tokens * window_tokens
    if n_used == 0:
        raise FormatError(
            f"{', '.join(map(str, paths))}: {n_tokens} tokens, a window has {window_tokens}; "
            "add text or choose shorter windows",
            code="file_too_small",
        )
    lengths = np.array([len(one) for one in ids])
    owners = np.repeat(np.arange(len(ids), dtype=np.int32), lengths)[:n_used]
    shape = (-1, window_tokens)
    tokens = np.concatenate(ids)[:n_used].reshape(shape)
    kind_of = np.array(kinds, dtype=np.int16)
    return Packed(tokens, owners.reshape(shape), kind_of, tuple(names))


def order(n_windows: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch takes the windows; a function of its arguments alone."""
    return np.random.default_rng((seed, epoch)).permutation(n_windows)


def step_windows(n_windows: int, step: int, n_wanted: int, seed: int) -> npt.NDArray[np.int64]:
    """The windows of optimizer step `step`; epochs follow each other without a gap."""
    places = np.arange(step * n_wanted, (step + 1) * n_wanted)
    chosen = np.empty(n_wanted, dtype=np.int64)
    for epoch in np.unique(places // n_windows):
        inside = places // n_windows == epoch
        chosen[inside] = order(n_windows, int(epoch), seed)[places[inside] % n_windows]
    return chosen


Text = tuple[str, str, dict[str, Any]]  # where it stands, kind, record


def documents(path: Path) -> Iterator[Text]:
    """The lines of a .jsonl or .jsonl.xz; of a text file, runs of whole lines. FormatError names
    the line that is not what it should be."""
    is_lines = path.name.endswith((".jsonl", ".jsonl.xz"))
    name = path.name.split(".")[0]
    lines = _lines(path)
    if not is_lines:
        yield from ((f"{path}, text {i}", name, {"text": t}) for i, t in enumerate(_chunks(lines)))
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}, line {number}"
            record = read_record(line, where)
            kind = record.get("kind", name)
            if not isinstance(kind, str) or not 0 < len(kind) <= 64:
                raise FormatError(f"{where}: 'kind' must be a short text", code="json_type")
            yield where, kind, record


def _chunks(lines: Iterator[str]) -> Iterator[str]:
    """Runs of whole lines of about TEXT_CHUNK_BYTES."""
    text = ""
    for line in lines:
        text += line
        if len(text) >= TEXT_CHUNK_BYTES:
            yield text
            text = ""
    if text.strip():
        yield text


def _lines(path: Path) -> Iterator[str]:
    opened = lzma.open if path.suffix == ".xz" else open
    number = 0
    try:
        with opened(path, "rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise FormatError(
                        f"{path}, line {number}: more than {MAX_LINE_BYTES} bytes",
                        code="json_too_large",
                    )
                yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}, line {number}: not UTF-8", code="json_syntax") from error
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file", code="file_not_found") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
