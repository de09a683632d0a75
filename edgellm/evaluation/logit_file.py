"""A saved reference: what a model said of every scored token of some texts, on disk.

The container is that of `.edge` files (docs/FORMAT.md): a hashed header, SHA-256 of every megabyte,
written under a temporary name and renamed, no pickle; any safetensors tool can list it. Its spec is
{"kind": "edgellm.logits", ...}, so it can never be loaded as a model. Tensors, little endian:

    ids    int32 [n_windows, n_ctx], the windows of all texts, one text after the other
    rows   one record per scored token: u32 top_id | f64 target_log_prob | f64 low | f64 step |
           u16 codes[n_vocab]; log p_i = low + step * codes[i]

`step` is (max - min) / 65535 of the row, so the stored log probability of every token is within
step / 2 of the true one (2.3e-4 nats where they span 30). Read back, a row is normalised again,
which moves all of it by at most step / 2 more: the error of each log probability is at most `step`.
`target_log_prob` and `top_id` are exact, and with them the reference's perplexity and top-1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..edgefile import EdgeWriter, read_header, read_tensor, verify
from ..errors import FormatError, InvalidArgumentError, UnsupportedError
from ..strict_json import Json
from .models import EvaluatedModel, row_blocks
from .scores import RowBlock
from .windows import TextWindows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KIND = "edgellm.logits"
SUFFIX = ".logits"
_VERSION = 1
_MAX_CODE = 65535
_MAX_N_VOCAB, _MAX_N_CTX, _MAX_TEXTS = 1 << 24, 1 << 24, 1 << 12


@dataclass(frozen=True)
class LogitFileInfo:
    """What a file says of itself. root, model_name and vocabulary_sha256 are the model's."""

    model_name: str
    root: str
    vocabulary_sha256: str
    n_vocab: int
    n_ctx: int
    first_scored: int
    texts: tuple[TextWindows, ...]


def save_logits(
    path: Path, model: EvaluatedModel, texts: Sequence[TextWindows], blocks: Iterable[RowBlock]
) -> None:
    """Write the rows of all windows of all texts, in order, as they come.

    The file appears whole or not at all; InvalidArgumentError if there are too few rows or too
    many, FormatError where it cannot be written. Memory: one block.
    """
    import numpy as np

    _check_byte_order()
    spec = {
        "kind": KIND,
        "version": _VERSION,
        "model": model.name,
        "root": model.root,
        "vocabulary_sha256": model.vocabulary_sha256,
        "n_vocab": model.n_vocab,
        "n_ctx": texts[0].n_ctx,
        "first_scored": texts[0].first_scored,
        "texts": [
            {
                "name": text.name,
                "sha256": text.sha256,
                "n_windows": text.n_windows,
                "n_left_out": text.n_left_out,
            }
            for text in texts
        ],
    }
    ids = np.concatenate([text.ids for text in texts])
    n_rows = sum(text.n_windows * text.n_scored for text in texts)
    record = row_dtype(model.n_vocab)
    with EdgeWriter(path, spec=spec) as writer:
        writer.plan("ids", "window_ids", format="U8", shape=(ids.nbytes,))
        writer.plan("rows", "logit_rows", format="U8", shape=(n_rows * record.itemsize,))
        writer.add("ids", ids.tobytes())
        writer.add("rows", (encode_rows(block).tobytes() for block in blocks))


def row_dtype(n_vocab: int) -> np.dtype[np.void]:
    """One record of `rows`, packed."""
    import numpy as np

    return np.dtype(
        [
            ("top_id", "<u4"),
            ("target_log_prob", "<f8"),
            ("low", "<f8"),
            ("step", "<f8"),
            ("codes", "<u2", (n_vocab,)),
        ]
    )


def encode_rows(block: RowBlock) -> npt.NDArray[np.void]:
    """Records [n_rows] of a block; error bound in the module's docstring."""
    import numpy as np

    n_rows, n_vocab = block.log_probs.shape
    low = block.log_probs.min(axis=1)
    step = (block.log_probs.max(axis=1) - low) / _MAX_CODE
    safe = np.where(step > 0, step, 1.0)  # a row of equal values: all codes are 0
    records = np.zeros(n_rows, row_dtype(n_vocab))
    records["top_id"] = block.top_ids
    records["target_log_prob"] = block.target_log_probs
    records["low"], records["step"] = low, step
    codes = np.rint((block.log_probs - low[:, None]) / safe[:, None])
    records["codes"] = np.minimum(codes, _MAX_CODE).astype(np.uint16)
    return records


class LogitFile:
    """An opened file, a source of rows. All its bytes are hashed when it is opened, so a damaged
    file is refused (IntegrityError) before anything is judged by it; a file that is whole and
    makes no sense gives FormatError."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        _check_byte_order()
        header = read_header(path)
        if header.spec.get("kind") != KIND:
            message = f"{path}: not a file of saved logits; make one: edgellm eval --save-logits"
            raise FormatError(message, "logits_invalid")
        verify(path)
        self.path = path
        self.name = path.name
        self.info = _parse(header.spec, path, _ids(read_tensor(header, "ids"), path))
        self.root = self.info.root
        self._record = row_dtype(self.info.n_vocab)
        self._first_row: dict[str, int] = {}
        n_rows = 0
        for text in self.info.texts:
            self._first_row.setdefault(text.sha256, n_rows)
            n_rows += text.n_windows * text.n_scored
        data = read_tensor(header, "rows")
        if data.nbytes != n_rows * self._record.itemsize:
            message = f"{path}: {data.nbytes} bytes of rows, but {n_rows} rows of this vocabulary"
            raise FormatError(f"{message} need another size", "logits_invalid")
        self._rows = np.frombuffer(data, self._record)

    def window(self, windows: TextWindows, index: int) -> Iterator[RowBlock]:
        """Rows of a window; FormatError where the numbers in the file are none."""
        first = self._first_row[windows.sha256] + index * windows.n_scored
        for start, stop in row_blocks(windows.n_scored, self.info.n_vocab):
            yield self._decode(self._rows[first + start : first + stop])

    def _decode(self, records: npt.NDArray[np.void]) -> RowBlock:
        import numpy as np

        low, step = records["low"], records["step"]
        target, top_ids = records["target_log_prob"], records["top_id"].astype(np.int64)
        with np.errstate(all="ignore"):
            rows = low[:, None] + step[:, None] * records["codes"]
            rows -= rows.max(axis=1, keepdims=True)
            rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        sound = np.isfinite(rows).all() and np.isfinite(target).all() and (target <= 0).all()
        if not sound or (step < 0).any() or (top_ids >= self.info.n_vocab).any():
            message = f"{self.path}: a row holds what is no log probability; save it again"
            raise FormatError(message, "logits_invalid")
        return RowBlock(rows, target, top_ids)


def check_logit_vocabulary(model: EvaluatedModel, file: LogitFile) -> None:
    """UnsupportedError unless the file was made with the vocabulary of `model`."""
    info = file.info
    what = ""
    if info.n_vocab != model.n_vocab:
        what = f"logits per token: {model.n_vocab} and {info.n_vocab}"
    elif info.vocabulary_sha256 != model.vocabulary_sha256:
        what = "tokens, though not in their number"
    if what:
        message = (
            f"{model.name} and {file.name} (of {info.model_name}) differ in {what}; "
            "only models with one vocabulary can be compared token by token"
        )
        raise UnsupportedError(message, code="vocabulary_mismatch")


def _check_byte_order() -> None:
    if sys.byteorder != "little":
        raise UnsupportedError("logit files need a little-endian machine", "feature_unsupported")


def _ids(data: memoryview, path: Path) -> npt.NDArray[np.int32]:
    import numpy as np

    if data.nbytes % 4:
        raise FormatError(f"{path}: a token id is cut short", "logits_invalid")
    return np.frombuffer(data, "<i4")


def _parse(spec: dict[str, Json], path: Path, ids: npt.NDArray[np.int32]) -> LogitFileInfo:
    if spec.get("version") != _VERSION:
        message = f"{path}: version {spec.get('version')!r} of saved logits; this edgellm knows"
        raise UnsupportedError(f"{message} {_VERSION}: save them again", "version_unsupported")
    n_vocab = _int(spec, "n_vocab", 1, _MAX_N_VOCAB, path)
    n_ctx = _int(spec, "n_ctx", 2, _MAX_N_CTX, path)
    first_scored = _int(spec, "first_scored", 1, n_ctx - 1, path)
    if ids.size and not (0 <= int(ids.min()) and int(ids.max()) < n_vocab):
        raise FormatError(f"{path}: a token id is not below {n_vocab}", "logits_invalid")
    texts: list[TextWindows] = []
    position = 0
    for entry in _entries(spec, path):
        n_windows = _int(entry, "n_windows", 1, ids.size // n_ctx, path)
        n_ids = n_windows * n_ctx
        if position + n_ids > ids.size:
            raise FormatError(f"{path}: fewer token ids than its texts need", "logits_invalid")
        window_ids = ids[position : position + n_ids].reshape(n_windows, n_ctx)
        n_left_out = _int(entry, "n_left_out", 0, 1 << 48, path)
        name, sha256 = _string(entry, "name", path), _string(entry, "sha256", path)
        if any(text.sha256 == sha256 for text in texts):
            raise FormatError(f"{path}: one text stands there twice", "logits_invalid")
        texts.append(TextWindows(name, sha256, window_ids, first_scored, n_left_out))
        position += n_ids
    if position != ids.size:
        raise FormatError(f"{path}: more token ids than its texts need", "logits_invalid")
    return LogitFileInfo(
        model_name=_string(spec, "model", path),
        root=_string(spec, "root", path),
        vocabulary_sha256=_string(spec, "vocabulary_sha256", path),
        n_vocab=n_vocab,
        n_ctx=n_ctx,
        first_scored=first_scored,
        texts=tuple(texts),
    )


def _entries(spec: dict[str, Json], path: Path) -> list[dict[str, Json]]:
    entries = spec.get("texts")
    sound = isinstance(entries, list) and 1 <= len(entries) <= _MAX_TEXTS
    if not sound or not isinstance(entries, list):
        raise FormatError(f"{path}: texts is no list of texts", "logits_invalid")
    found = [entry for entry in entries if isinstance(entry, dict)]
    if len(found) != len(entries):
        raise FormatError(f"{path}: a text is not described by an object", "logits_invalid")
    return found


def _int(members: dict[str, Json], key: str, low: int, high: int, path: Path) -> int:
    value = members.get(key)
    if type(value) is not int or not low <= value <= high:
        message = f"{path}: {key} is {value!r:.40}, not a whole number in {low}..{high}"
        raise FormatError(message, "logits_invalid")
    return value


def _string(members: dict[str, Json], key: str, path: Path) -> str:
    value: Any = members.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 4096:
        raise FormatError(f"{path}: {key} is no short text", "logits_invalid")
    return value


def check_same_windows(file: LogitFile, texts: Sequence[TextWindows]) -> None:
    """InvalidArgumentError unless every text, as it was cut now, is in the file as it was then."""
    saved = {text.sha256: text for text in file.info.texts}
    for text in texts:
        other = saved.get(text.sha256)
        if other is None:
            names = ", ".join(one.name for one in file.info.texts)
            message = (
                f"{text.name} is not among the texts of {file.name} ({names}); "
                "leave --text out to score those"
            )
            raise InvalidArgumentError(message, code="text_unknown")
        alike = other.first_scored == text.first_scored and other.ids.shape == text.ids.shape
        if not alike or not bool((other.ids == text.ids).all()):
            message = (
                f"{text.name} was cut into other windows in {file.name}: "
                "leave --text, --n-ctx and --max-tokens-scored out to score those"
            )
            raise InvalidArgumentError(message, code="text_unknown")
