"""A PEFT directory: adapter_config.json and adapter_model.safetensors, both untrusted.

What the configuration asks for and is not honoured is refused by name. Knows no architecture: the
names are those that PEFT gives to the modules of the model that it wrapped. The oracle is
the peft package (0.21).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from edgellm.errors import FormatError, UnsupportedError

from .checkpoint import F32Array, read_json_object, to_float32
from .safetensors_header import TensorInfo, read_safetensors_header
from .source_path import PICKLE_SUFFIXES

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_RANK = 1024  # as native/src/model/adapter.h
READABLE_DTYPES = ("F32", "F16", "BF16")
MAX_PATTERNS = 4096
MAX_PATTERN_CHARS = 512
# Keys that say how the adapter was trained, or what the tensors say themselves.
_NO_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "exclude_modules",
        "fan_in_fan_out",  # how the base stores its matrix; B (A x) is the same
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",  # of megatron_config, which is refused
        "peft_type",
        "peft_version",
        "qalora_group_size",  # of use_qalora, which is refused
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
_HONOURED = frozenset({"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern"})
# Ways to begin training that leave the base model as it is; PiSSA, OLoRA and others change it.
_INIT = (True, False, None, "gaussian", "eva", "orthogonal")
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")


@dataclass(frozen=True)
class Pair:
    """The change B A of one module. a: [rank, inputs], b: [outputs, rank]; scale: alpha / rank."""

    a: TensorInfo
    b: TensorInfo
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def read(self) -> tuple[F32Array, F32Array]:
        """(A, scale * B), in float32."""
        return _read(self.a), _read(self.b) * np.float32(self.scale)


@dataclass(frozen=True)
class PeftAdapter:
    """pairs: by module, as the base model names it ("model.layers.0.self_attn.q_proj")."""

    directory: Path
    base_name: str | None
    pairs: Mapping[str, Pair]

    @property
    def files(self) -> tuple[Path, ...]:
        return self.directory / CONFIG_FILE, self.directory / WEIGHTS_FILE


def read_peft(directory: Path) -> PeftAdapter:
    """Everything but the weights. FormatError, UnsupportedError."""
    if not directory.is_dir():
        raise FormatError(
            f"{directory}: not a directory; a PEFT adapter is one, with {CONFIG_FILE}",
            code="file_not_found",
        )
    config = read_json_object(directory / CONFIG_FILE)
    where = str(directory / CONFIG_FILE)
    _check_config(config, where)
    tensors = {info.name: info for info in read_safetensors_header(_weights_file(directory))}
    halves: dict[str, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        found = _NAME.fullmatch(name)
        if found is None:
            _refuse(f"{info.path}: tensor '{name[:200]}' is no half of a LoRA matrix")
        halves.setdefault(found["module"], {})[found["half"]] = info
    if not halves:
        raise FormatError(f"{directory / WEIGHTS_FILE}: no tensors", code="tensor_missing")
    scales = _Scales(config, where)
    pairs = {module: _pair(module, found, scales) for module, found in halves.items()}
    base = config.get("base_model_name_or_path")
    return PeftAdapter(directory, base if isinstance(base, str) else None, pairs)


def _weights_file(directory: Path) -> Path:
    path = directory / WEIGHTS_FILE
    if path.is_file():
        return path
    pickles = sorted(p.name for p in directory.iterdir() if p.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise UnsupportedError(
            f"{directory}: only pickled weights ({pickles[0]}), which can run code when read; load "
            "the adapter with peft and save it again: save_pretrained(DST) writes safetensors",
            code="file_unreadable",
        )
    raise FormatError(f"{path}: no such file", code="file_not_found")


def _check_config(config: Mapping[str, Any], where: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        _refuse(f"{where}: peft_type is {_shown(kind)}; only LORA can be converted")
    if config.get("init_lora_weights", True) not in _INIT:
        _refuse(
            f"{where}: init_lora_weights is {_shown(config['init_lora_weights'])}, which changes "
            "the base model; convert the adapter with peft's "
            "path_initial_model_for_weight_conversion first"
        )
    for key, value in config.items():
        if key in _NO_EFFECT or key in _HONOURED or key == "init_lora_weights":
            continue
        off = value in (None, False, "", "none") or value == [] or value == {}
        if not off:
            _refuse(f"{where}: '{key[:80]}' is {_shown(value)}, which is not honoured")


class _Scales:
    """alpha / r of a module, as peft's LoraLayer.update_layer has it."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self._where = where
        self._rank = self._positive(config.get("r", 8), "r")
        self._alpha = self._positive(config.get("lora_alpha", 8), "lora_alpha")
        self._ranks = self._patterns(config, "rank_pattern")
        self._alphas = self._patterns(config, "alpha_pattern")
        self._is_rslora = config.get("use_rslora", False)
        if not isinstance(self._is_rslora, bool):
            raise FormatError(f"{where}: 'use_rslora' must be true or false", code="json_type")

    def rank(self, module: str) -> float:
        return _matching(self._ranks, module, self._rank)

    def scale(self, module: str) -> float:
        rank, alpha = self.rank(module), _matching(self._alphas, module, self._alpha)
        return alpha / math.sqrt(rank) if self._is_rslora else alpha / rank

    def _patterns(self, config: Mapping[str, Any], key: str) -> dict[re.Pattern[str], float]:
        values = config.get(key) or {}
        if not isinstance(values, dict) or len(values) > MAX_PATTERNS:
            raise FormatError(f"{self._where}: '{key}' must be an object", code="json_type")
        patterns: dict[re.Pattern[str], float] = {}
        for pattern, value in values.items():
            if len(pattern) > MAX_PATTERN_CHARS or not _is_plain(pattern):
                _refuse(f"{self._where}: '{key}' has the pattern {_shown(pattern)}")
            literal = re.escape(pattern.removeprefix("^").removesuffix("$"))
            start = "" if pattern.startswith("^") else r"(?:.*\.)?"
            patterns[re.compile(start + literal)] = self._positive(value, key)
        return patterns

    def _positive(self, value: object, key: str) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < float(value) <= 1 << 20:  # type: ignore[arg-type]
            raise FormatError(
                f"{self._where}: '{key}' is {_shown(value)}, it must be a positive number",
                code="json_type",
            )
        return float(value)  # type: ignore[arg-type]


def _is_plain(pattern: str) -> bool:
    """A module's name. PEFT takes regular expressions; those of a stranger can take for ever."""
    return re.fullmatch(r"\^?[A-Za-z0-9_.-]+\$?", pattern) is not None


def _matching(patterns: Mapping[re.Pattern[str], float], module: str, default: float) -> float:
    found = (value for pattern, value in patterns.items() if pattern.fullmatch(module))
    return next(found, default)


def _pair(module: str, halves: Mapping[str, TensorInfo], scales: _Scales) -> Pair:
    for half in "AB":
        if half not in halves:
            raise FormatError(f"'{module[:200]}': lora_{half} is missing", code="tensor_missing")
    a, b = halves["A"], halves["B"]
    for info in (a, b):
        if info.dtype not in READABLE_DTYPES:
            raise UnsupportedError(
                f"{info.path}: tensor '{info.name}' is {info.dtype}; only "
                f"{', '.join(READABLE_DTYPES)} can be converted",
                code="tensor_dtype",
            )
    rank = scales.rank(module)
    fits = len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] == rank
    if not fits or rank > MAX_RANK or 0 in (*a.shape, *b.shape):
        raise FormatError(
            f"{a.path}: the matrices of '{module[:200]}' are {list(a.shape)} and {list(b.shape)}; "
            f"{CONFIG_FILE} gives the rank {rank:g}, at most {MAX_RANK} is possible",
            code="tensor_shape",
        )
    return Pair(a, b, scales.scale(module))


def _read(info: TensorInfo) -> F32Array:
    with info.path.open("rb") as file:
        file.seek(info.offset_bytes)
        raw = file.read(info.n_bytes)
    if len(raw) != info.n_bytes:
        raise FormatError(f"{info.path}: shrank while it was read", code="tensor_past_end")
    return to_float32(np.frombuffer(raw, dtype=np.uint8), info).reshape(info.shape)


def _shown(value: object) -> str:
    return repr(value)[:80]


def _refuse(message: str) -> NoReturn:
    raise UnsupportedError(message, code="feature_unsupported")
