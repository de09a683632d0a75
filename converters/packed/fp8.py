"""FP8 checkpoints: 8-bit float codes with scales per tensor, per row or per block.

w = code * scale, multiplied in float32. The conventions, as vLLM and transformers read them:

* `quant_method: fp8`. With `weight_block_size: [rows, columns]` (DeepSeek-V3, arXiv:2412.19437;
  Qwen3-FP8), `X.weight_scale_inv` holds one scale a block, the last ones of which may be cut off by
  the matrix' edge. Without it `X.weight_scale` is one number, or one per row.
* `quant_method: fbgemm_fp8`: one scale per row.
* `quant_method: compressed-tensors` of float type with 8 bits: strategy tensor, channel, group or
  block.

Which matrices are packed is read off the tensors (an 8-bit float with a scale), not off the lists
of modules left out. In spite of its name `weight_scale_inv` is multiplied as well. Scales of
activations have no use here: they are left out and named in the warnings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm.errors import FormatError, NumericError, UnsupportedError

from . import F32Array, Packing, StoredReader, Unpack
from .float8 import FLOAT8_DTYPES

if TYPE_CHECKING:
    from ..safetensors_header import TensorInfo

NAMES = ("fp8", "fbgemm_fp8", "compressed-tensors (float, 8 bits)")
SCALE_NAMES = ("weight_scale_inv", "weight_scale")
SCALE_DTYPES = ("F32", "BF16", "F16")
ACTIVATION_SCALES = (
    "activation_scale",
    "input_scale",
    "input_scale_ub",
    "output_scale",
    "q_scale",
    "k_scale",
    "v_scale",
    "kv_scale",
    "prob_scale",
)
_COMPRESSED_FORMATS = ("float-quantized", "naive-quantized")
# Key -> the values under which weights are what this file reads; None: any value.
_KEYS: dict[str, tuple[Any, ...] | None] = {
    "quant_method": None,
    "fmt": ("e4m3", "e5m2", "float8_e4m3fn", "float8_e5m2"),
    "scale_fmt": ("float", "ue8m0", None),  # of F32 scales that are powers of two
    "activation_scheme": ("dynamic", "static"),
    "activation_scale_ub": None,
    "weight_block_size": None,
    "modules_to_not_convert": None,
    "modules_to_convert": None,
    "ignored_layers": None,
    "ignore": None,
    "dequantize": None,
    "expert_dtype": ("fp8", None),
    "kv_cache_scheme": None,
    "kv_cache_quant_method": None,
    "config_groups": None,
    "format": _COMPRESSED_FORMATS,
    "quantization_status": ("compressed", "frozen"),
    "global_compression_ratio": None,
    "sparsity_config": (None, {}, {"format": "dense"}),
    "transform_config": (None, {}),
    "version": None,
}

# Rows and columns of a block; None: all that the matrix has.
Block = tuple[int | None, int | None]
_TENSOR: Block = (None, None)
_ROW: Block = (1, None)


def claims(config: Mapping[str, Any]) -> bool:
    """Whether a quantization_config is of FP8 weights."""
    method = config.get("quant_method")
    if method == "compressed-tensors":
        groups = config.get("config_groups")
        if config.get("format") not in _COMPRESSED_FORMATS or not isinstance(groups, dict):
            return False
        return all(_is_float8(group) for group in groups.values())
    return method in ("fp8", "fbgemm_fp8")


def packing(config: Mapping[str, Any], stored: Mapping[str, TensorInfo]) -> Packing:
    """FormatError where scales are missing or of another shape than `config` says."""
    _check_values(config)
    blocks = _blocks(config)
    unpack: dict[str, Unpack] = {}
    left_out: Counter[str] = Counter()
    tensors = dict(stored)
    for name, info in stored.items():
        leaf = name.rpartition(".")[2]
        if leaf in ACTIVATION_SCALES:
            left_out[leaf] += 1
            del tensors[name]
        elif info.dtype in FLOAT8_DTYPES:
            scale = _scale_of(info, stored)
            del tensors[scale.name]
            unpack[name] = _Scaled(info, scale, _matching_block(info, scale, blocks))
    if not unpack:
        raise FormatError(
            f"config.json: quantization_config says {_short(config['quant_method'])}, but no "
            f"tensor is {' or '.join(FLOAT8_DTYPES)}",
            code="tensor_dtype",
        )
    return Packing(tensors, unpack, _warnings(config, left_out))


@dataclass(frozen=True)
class _Scaled:
    """Reads rows of one matrix. block: rows and columns that share a scale."""

    weight: TensorInfo
    scale: TensorInfo
    block: tuple[int, int]

    def __call__(self, reader: StoredReader, row0: int, n_rows: int) -> F32Array:
        """NumericError where a scale is not finite."""
        rows = reader.stored_rows(self.weight, row0, n_rows)
        n_block_rows, n_block_cols = self.block
        n_scale_rows = self.scale.shape[0] if len(self.scale.shape) == 2 else 1
        grid = reader.stored_rows(self.scale, 0, n_scale_rows)
        grid = grid.reshape(_grid(self.weight.shape, self.block))
        if not np.isfinite(grid).all():
            raise NumericError(
                f"{self.scale.path}: tensor '{self.scale.name}' holds a scale that is not finite",
                code="numeric",
            )
        at = np.arange(row0, row0 + n_rows) // n_block_rows
        for index in range(grid.shape[1]):
            columns = slice(index * n_block_cols, (index + 1) * n_block_cols)
            rows[:, columns] *= grid[at, index, None]
        return rows


def _is_float8(group: object) -> bool:
    weights = group.get("weights") if isinstance(group, dict) else None
    kind = (weights.get("type"), weights.get("num_bits")) if isinstance(weights, dict) else None
    return kind == ("float", 8)


def _check_values(config: Mapping[str, Any]) -> None:
    for key, allowed in _KEYS.items():
        if key in config and allowed is not None and config[key] not in allowed:
            raise UnsupportedError(
                f"config.json: quantization_config.{key} = {_short(config[key])} is not supported "
                f"(supported: {', '.join(map(str, allowed))})",
                code="spec_unsupported",
            )


def _blocks(config: Mapping[str, Any]) -> tuple[Block, ...]:
    """What a scale may stand for in this checkpoint."""
    method = config["quant_method"]
    if method == "compressed-tensors":
        return tuple(_strategy(group["weights"]) for group in config["config_groups"].values())
    size = config.get("weight_block_size")
    return (_TENSOR, _ROW) if size is None else (_block_size(size, "weight_block_size"),)


def _strategy(weights: Mapping[str, Any]) -> Block:
    """compressed-tensors' name for what shares a scale."""
    strategy = weights.get("strategy", "tensor")
    if weights.get("symmetric", True) is not True or weights.get("dynamic", False) is not False:
        raise UnsupportedError(
            "config.json: quantization_config: weights of FP8 must be symmetric and not dynamic",
            code="spec_unsupported",
        )
    if strategy == "tensor":
        return _TENSOR
    if strategy == "channel":
        return _ROW
    if strategy == "group":
        return _block_size([1, weights.get("group_size")], "group_size")
    if strategy == "block":
        size = weights.get("block_structure")
        if isinstance(size, str):  # older files: "128x128"
            size = [int(part) if part.isdecimal() else part for part in size[:40].split("x")]
        return _block_size(size, "block_structure")
    raise UnsupportedError(
        f"config.json: quantization_config: strategy {_short(strategy)} is not supported "
        "(supported: tensor, channel, group, block)",
        code="spec_unsupported",
    )


def _block_size(value: object, key: str) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        n_rows, n_cols = value
        if type(n_rows) is int and type(n_cols) is int and 0 < n_rows < 1 << 31 > n_cols > 0:
            return n_rows, n_cols
    raise FormatError(
        f"config.json: quantization_config: {key} is {_short(value)}, it must be positive integers",
        code="json_type",
    )


def _scale_of(weight: TensorInfo, stored: Mapping[str, TensorInfo]) -> TensorInfo:
    stem, _, leaf = weight.name.rpartition(".")
    if leaf != "weight" or len(weight.shape) != 2:
        raise UnsupportedError(
            f"{weight.path}: tensor '{weight.name}' {list(weight.shape)} is {weight.dtype}; only "
            "matrices named *.weight can be",
            code="tensor_dtype",
        )
    found = [stored[name] for leaf in SCALE_NAMES if (name := f"{stem}.{leaf}") in stored]
    if len(found) != 1:
        raise FormatError(
            f"{weight.path}: tensor '{weight.name}' is {weight.dtype} and has {len(found)} scales, "
            f"it needs one of {' and '.join(SCALE_NAMES)}",
            code="tensor_missing",
        )
    if found[0].dtype not in SCALE_DTYPES:
        raise UnsupportedError(
            f"{found[0].path}: tensor '{found[0].name}' is {found[0].dtype}; scales can be "
            f"{', '.join(SCALE_DTYPES)}",
            code="tensor_dtype",
        )
    return found[0]


def _matching_block(
    weight: TensorInfo, scale: TensorInfo, blocks: tuple[Block, ...]
) -> tuple[int, int]:
    n_rows, n_cols = (max(size, 1) for size in weight.shape)
    wanted = []
    for rows, cols in blocks:
        block = (rows or n_rows, cols or n_cols)
        grid = _grid((n_rows, n_cols), block)
        if scale.shape == grid or (grid[1] == 1 and scale.shape == grid[:1]):
            return block
        if grid == (1, 1) and scale.shape == ():
            return block
        wanted.append(list(grid))
    raise FormatError(
        f"{scale.path}: tensor '{scale.name}' is {list(scale.shape)}; config.json and "
        f"'{weight.name}' {list(weight.shape)} ask for {' or '.join(map(str, wanted))}",
        code="tensor_shape",
    )


def _grid(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, int]:
    """How many scales a matrix has, the blocks that its edge cuts off counted in full."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def _warnings(config: Mapping[str, Any], left_out: Counter[str]) -> tuple[str, ...]:
    warnings = []
    if left_out:
        counts = ", ".join(f"{n} x {leaf}" for leaf, n in sorted(left_out.items()))
        warnings.append(f"scales of activations left out: {counts}")
    unread = sorted(set(config) - set(_KEYS))
    if unread:
        names = ", ".join(key[:40] for key in unread[:12])
        warnings.append(f"config.json keys without effect: quantization_config: {names}")
    return tuple(warnings)


def _short(value: object) -> str:
    return repr(value)[:80]
