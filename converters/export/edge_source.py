"""A converted model as a checkpoint: what the pipeline reads of a Hugging Face directory, read from
an `.edge` file, for writing it as something else.

Weights are what the file's formats decode to. All in the file is untrusted: its hashes are
checked before anything is read, its spec by the rules of spec.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgellm.edgefile import read_tensor, tensor_bytes, verify
from edgellm.errors import FormatError, UnsupportedError

from ..archs import Architecture
from ..checkpoint import Checkpoint, matrix_shape
from ..embedding import MODULES_FILE, embedding_steps
from ..layout import tensor_slots
from ..packed import Packing, StoredReader
from ..quant import decode_matrix
from ..quant.l4 import unpack_l4_32
from ..quant.tiles import TILE_ROWS
from ..safetensors_header import TensorInfo
from ..spec import ModelSpec
from .edge_arch import EdgeArch

if TYPE_CHECKING:
    from ..tokenizer import Description

F32Array = npt.NDArray[np.float32]
U8Array = npt.NDArray[np.uint8]

_SUFFIX = ".edge"
_MAX_TEXT_BYTES = 64 << 20
_ADAPTER = "adapter"


def is_edge(path: Path) -> bool:
    """Whether a path is to be read as a converted model."""
    return path.suffix == _SUFFIX and path.is_file()


class EdgeCheckpoint(Checkpoint):
    """An opened file. `directory` is its path; tensors stand under our own names. tokenizer_blob:
    the compiled tokenizer, empty if there is none."""

    kind = "edge"

    def __init__(self, path: Path) -> None:
        self._header = header = verify(path)
        if header.spec.get("kind") == _ADAPTER:
            raise UnsupportedError(
                f"{path}: an adapter, not a model; give the model's file", code="spec_unsupported"
            )
        # How the runtime stores keys is no part of the model.
        self._spec = ModelSpec.from_json(header.metadata["edgellm.spec"]).without_key_changes()
        self._open(path, {}, [path], Packing({}), has_weights=True)
        for slot in tensor_slots(self._spec):
            info = header.tensors.get(slot.name)
            if info is None or info.shape != slot.shape:
                raise FormatError(
                    f"{path}: tensor '{slot.name}' is missing or not {list(slot.shape)}",
                    code="tensor_missing",
                )
            stored = TensorInfo(slot.name, "F32", slot.shape, path, info.offset, info.n_bytes)
            self.define(stored, partial(self._decoded, slot.name))
        if header.tensors.get("tokenizer") is None:
            self.tokenizer_blob = b""
        else:
            self.tokenizer_blob = bytes(read_tensor(header, "tokenizer"))

    @property
    def arch(self) -> Architecture:
        return EdgeArch(self._spec, self._header)

    def format_of(self, name: str) -> str:
        """The weight format of one of our tensors."""
        return self._header.tensors[name].format

    def optional_json(self, name: str) -> dict[str, Any]:
        if name == "tokenizer_config.json":
            return self._json("special_tokens")
        found: dict[str, Any] = embedding_steps(self._json("embedding")).get(name, {})
        return found

    def optional_text(self, name: str) -> str | None:
        if name == "chat_template.jinja":
            return self._text("chat_template")
        if name == MODULES_FILE and "embedding" in self._header.tensors:
            return json.dumps(embedding_steps(self._json("embedding"))[MODULES_FILE])
        return None

    def tokenizer_description(self) -> Description | None:
        if not self.tokenizer_blob:
            return None
        from ..gguf.compiled import describe_compiled

        return describe_compiled(self.directory, self.tokenizer_blob)

    def check_vocabulary(self, keys: Mapping[str, Any]) -> None:
        """UnsupportedError unless the tokenizer of a GGUF file's keys is the file's own."""
        if self.tokenizer_blob:
            from ..gguf.compiled import check_same

            check_same(self.directory, self.tokenizer_blob, keys)

    def q4_0_rows(self, name: str, row0: int, n_rows: int) -> U8Array | None:
        """Rows as blocks of GGUF's Q4_0, [n_rows, bytes of a row], if the tensor holds these rows
        in numbers that Q4_0 has, too: L4_32 with a zero point of 8."""
        info = self._header.tensors[name]
        n_cols = info.shape[-1]
        if info.format != "L4_32" or n_cols % 32:
            return None
        strips, first = self._whole_strips(name, row0, n_rows)
        scales, zeros, codes = unpack_l4_32(strips, n_cols)
        own = slice(row0 - first, row0 - first + n_rows)
        if (zeros[own] != 8).any():
            return None
        blocks = codes[own].reshape(n_rows, -1, 32)
        nibbles = blocks[..., :16] | blocks[..., 16:] << np.uint8(4)
        halves = scales[own].view(np.uint8).reshape(n_rows, -1, 2)
        return np.concatenate([halves, nibbles], axis=2).reshape(n_rows, -1)

    def strips(self, name: str) -> U8Array:
        """All strips of a matrix in its own format."""
        return np.frombuffer(read_tensor(self._header, name), dtype=np.uint8)

    def _whole_strips(self, name: str, row0: int, n_rows: int) -> tuple[U8Array, int]:
        """Whole strips around some rows, and the first row in them."""
        info = self._header.tensors[name]
        first, end = row0 // TILE_ROWS, -(-(row0 + n_rows) // TILE_ROWS)
        strip_bytes = tensor_bytes(info.format, TILE_ROWS, info.shape[-1])
        view = read_tensor(self._header, name)[first * strip_bytes : end * strip_bytes]
        return np.frombuffer(view, dtype=np.uint8), first * TILE_ROWS

    def _decoded(self, name: str, _reader: StoredReader, row0: int, n_rows: int) -> F32Array:
        info = self._header.tensors[name]
        total_rows, n_cols = matrix_shape(info.shape)
        if len(info.shape) == 1:
            values = np.frombuffer(read_tensor(self._header, name), dtype="<f4")
            return values.astype(np.float32).reshape(1, -1)
        strips, first = self._whole_strips(name, row0, n_rows)
        n_decoded = min(total_rows, -(-(row0 + n_rows) // TILE_ROWS) * TILE_ROWS) - first
        rows = decode_matrix(info.format, strips, n_decoded, n_cols)
        return rows[row0 - first : row0 - first + n_rows]

    def _text(self, name: str) -> str | None:
        info = self._header.tensors.get(name)
        if info is None:
            return None
        if info.n_bytes > _MAX_TEXT_BYTES:
            raise FormatError(f"{self.directory}: '{name}' is too large", code="header_too_large")
        try:
            return bytes(read_tensor(self._header, name)).decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{self.directory}: '{name}' is not UTF-8: {error}", code="json_syntax"
            ) from error

    def _json(self, name: str) -> dict[str, Any]:
        text = self._text(name)
        try:
            value = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{self.directory}: '{name}': {error}", code="json_syntax") from error
        if not isinstance(value, dict):
            raise FormatError(f"{self.directory}: '{name}' must be an object", code="json_type")
        return value
