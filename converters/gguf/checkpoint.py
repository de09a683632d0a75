"""A GGUF file as a checkpoint: what the pipeline reads of a Hugging Face directory, read from one.

Its keys become a config.json, its vocabulary the files of a tokenizer, and its tensors stand under
the names of llama.cpp; rows are decoded when asked for, so memory does not grow with the file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.errors import FormatError

from ..archs import Architecture
from ..checkpoint import Checkpoint
from ..embedding import MODULES_FILE
from ..layout import tensor_slots
from ..packed import F32Array, Packing, StoredReader, Strips, U8Array
from .arch import GgufArch
from .architectures import ARCHITECTURES
from .config import Stored, read_config
from .dequantize import dequantize
from .exact import EXACT
from .keys import POOLINGS, Keys, architecture
from .reader import MAGIC, read_gguf
from .tensors import ROPE_TENSORS, Finder, Rows, Source
from .tokenizer import Vocabulary
from .types import BY_NAME, FORMATS

if TYPE_CHECKING:
    from ..tokenizer import Description

_MAX_VECTOR = 1 << 20
# What llama.cpp does for embeddings, as the steps of a sentence-transformers directory.
_POOLING_CONFIG = "1_Pooling/config.json"
_EMBEDDING_STEPS = json.dumps(
    [
        {"path": "", "type": "Transformer"},
        {"path": "1_Pooling", "type": "Pooling"},
        {"path": "", "type": "Normalize"},
    ]
)


def is_gguf(path: Path) -> bool:
    """Whether a path is to be read as GGUF: its name or its first bytes say so."""
    if path.is_dir():
        return False
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class GgufCheckpoint(Checkpoint):
    """An opened GGUF file, or all parts of a split one. `directory` is its path."""

    kind = "gguf"

    def __init__(self, path: Path, *, without_weights: bool = False) -> None:
        self._file = read_gguf(path)
        metadata, tensors = self._file.metadata, self._file.tensors
        self._vocabulary = Vocabulary(path, metadata)
        if not tensors and not without_weights:
            raise FormatError(
                f"{path}: holds a vocabulary and no tensors: there is nothing to convert",
                code="tensor_missing",
            )
        keys = Keys(path, metadata, architecture(path, metadata, ARCHITECTURES))
        self._open(path, {}, self._file.paths, Packing({}), has_weights=bool(tensors))
        try:
            self._read(keys)
        except BaseException:
            self.close()
            raise

    def _read(self, keys: Keys) -> None:
        shapes = {name: info.shape for name, info in self._file.tensors.items()}
        stored = Stored(shapes, self._vector)
        self.config = read_config(keys, stored, self._vocabulary.n_tokens)
        self.config |= self._vocabulary.token_ids()
        self._arch = GgufArch(self.config, self._file, self._rope_factors())
        self.warnings = tuple(self._warnings(keys))
        self._pooling = POOLINGS.get(keys.integer("pooling_type", 0))
        if self.has_weights:
            self._find_tensors(ARCHITECTURES[keys.arch].in_pairs)

    @property
    def arch(self) -> Architecture:
        return self._arch

    def optional_json(self, name: str) -> dict[str, Any]:
        """What the file says of what would stand in a file of this name."""
        if name == _POOLING_CONFIG:
            return {"pooling_mode": self._pooling}
        return self._vocabulary.special_tokens() if name == "tokenizer_config.json" else {}

    def optional_text(self, name: str) -> str | None:
        if name == MODULES_FILE and self._pooling is not None:
            return _EMBEDDING_STEPS
        return self._vocabulary.chat_template() if name == "chat_template.jinja" else None

    def tokenizer_description(self) -> Description | None:
        return self._vocabulary.description()

    def vocabulary_keys(self) -> dict[str, Any]:
        """The keys of the vocabulary and the template, as they stand there."""
        metadata = self._file.metadata
        return {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}

    def exact_format(self, names: Collection[str]) -> str | None:
        types = self._types(names)
        formats = {FORMATS[name].exact if name in FORMATS else None for name in types}
        return formats.pop() if len(types) == 1 else None

    def best_format(self, names: Collection[str], *, whole: bool) -> str | None:
        exact = self.exact_format(names) if whole else None
        nearest = (FORMATS[name].nearest for name in self._types(names) if name in FORMATS)
        return exact or max(nearest, default="F16" if self._is_quantized else None)

    @property
    def _is_quantized(self) -> bool:
        """Who made the file left its other matrices as they are, so they are not rounded either."""
        return any(kind in FORMATS for source in self._sources.values() for kind in source.types)

    def strips_in(self, format: str) -> Mapping[str, Strips]:
        return self._exact.get(format, {})

    def _types(self, names: Collection[str]) -> set[str]:
        return {kind for name in names for kind in self._sources[name].types}

    def _find_tensors(self, in_pairs: bool) -> None:
        spec = self._arch.to_spec(self.config, {})
        finder = Finder(self._file.tensors, spec, in_pairs)
        self._sources: dict[str, Source] = {}
        self._exact: dict[str, dict[str, Strips]] = {}
        used = set(ROPE_TENSORS)
        for slot in tensor_slots(spec):
            source = finder.source(slot)
            infos = [part.info for part in source.parts if part.info is not None]
            used |= {info.name for info in infos}
            self._arch.names[slot.name] = source.name
            self._sources[source.name] = source
            (one,) = source.types if len(source.types) == 1 else ("F32",)
            dtype = "F32" if one in FORMATS else one
            info = replace(infos[0], name=source.name, dtype=dtype, shape=slot.shape)
            self.define(info, partial(self._decoded, source))
            exact = FORMATS[one].exact if one in FORMATS else None
            if exact is not None and len(slot.shape) == 2:
                self._exact.setdefault(exact, {})[source.name] = partial(self._as_strips, source)
        # What nobody asked for is refused by name where names are checked.
        for name, info in self._file.tensors.items():
            if name not in used:
                self.tensors.setdefault(name, info)

    def _decoded(self, source: Source, _reader: StoredReader, row0: int, n_rows: int) -> F32Array:
        if len(source.shape) == 1:
            row0, n_rows = 0, source.shape[0]
        pieces = [
            np.zeros((part.n_rows, source.n_cols), dtype=np.float32)
            if part.info is None
            else dequantize(self._raw(part, source.n_cols), part.info.dtype)
            for part in source.rows(row0, n_rows)
        ]
        rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return rows.reshape(1, -1) if len(source.shape) == 1 else rows

    def _as_strips(self, source: Source, _reader: StoredReader, row0: int, n_rows: int) -> U8Array:
        (name,) = source.types
        row_bytes = source.n_cols // BY_NAME[name].n_weights * BY_NAME[name].n_bytes
        pieces = [
            np.zeros((part.n_rows, row_bytes), dtype=np.uint8)
            if part.info is None
            else self._raw(part, source.n_cols)
            for part in source.rows(row0, n_rows)
        ]
        return EXACT[name](np.concatenate(pieces))

    def _raw(self, part: Rows, n_cols: int) -> U8Array:
        """Rows as they are stored, [n_rows, bytes of a row]."""
        assert part.info is not None
        kind = BY_NAME[part.info.dtype]
        row_bytes = n_cols // kind.n_weights * kind.n_bytes
        first, end = part.row0, part.row0 + part.n_rows
        if part.order is not None:
            first, end = int(part.order.min()), int(part.order.max()) + 1
        offset = part.info.offset_bytes + first * row_bytes
        raw = self.file_bytes(part.info.path, offset, (end - first) * row_bytes)
        rows = raw.reshape(end - first, row_bytes)
        return rows if part.order is None else rows[part.order - first]

    def _vector(self, name: str) -> F32Array:
        """A small tensor as a vector."""
        info = self._file.tensors[name]
        if info.n_elements > _MAX_VECTOR:
            raise FormatError(
                f"{info.path}: tensor '{name}' is {list(info.shape)}, larger than it can be",
                code="tensor_shape",
            )
        return dequantize(self._raw(Rows(info, 1), info.n_elements), info.dtype).reshape(-1)

    def _rope_factors(self) -> F32Array | None:
        name = "rope_freqs.weight"
        return self._vector(name) if name in self._file.tensors else None

    def _warnings(self, keys: Keys) -> list[str]:
        unknown = keys.check_honoured()
        found = [f"GGUF keys without effect: {', '.join(unknown)}"] if unknown else []
        return found + self._vocabulary.warnings()
