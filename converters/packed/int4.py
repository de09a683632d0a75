"""Checkpoints with 4-bit integer weights: GPTQ, AWQ and compressed-tensors, read exactly.

w = s * (q - z) with a scale and a zero point per group of columns, which is what a tile of L4_32
holds: nothing is rounded. This file decides what a checkpoint has; int4_matrix.py has the layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgellm.errors import FormatError, UnsupportedError

from . import Packing, Strips, Unpack
from .int4_matrix import TILE_K, AwqMatrix, CompressedMatrix, GptqMatrix, PackedMatrix

if TYPE_CHECKING:
    from ..safetensors_header import TensorInfo

NAMES = ("gptq (4 bits)", "awq (4 bits, gemm)", "compressed-tensors (int, 4 bits, pack-quantized)")
SCALE_DTYPES = ("F16", "BF16", "F32")
# Key -> the values under which weights are what this file reads; None: any value.
_GPTQ_KEYS: dict[str, tuple[Any, ...] | None] = {
    "bits": (4,),
    "checkpoint_format": ("gptq", "gptq_v2", None),
    "pack_dtype": ("int32", None),
    "dynamic": (None, {}),
    "format": ("gptq", "gptq_v2", None),
}
_AWQ_KEYS: dict[str, tuple[Any, ...] | None] = {
    "bits": (4,),
    "version": ("gemm", "GEMM", None),
}
_COMPRESSED_WEIGHTS: dict[str, tuple[Any, ...]] = {
    "num_bits": (4,),
    "type": ("int",),
    "strategy": ("group", "channel"),
    "dynamic": (False, None),
    "actorder": (None, "weight", "static", "group"),
}


def claims(config: Mapping[str, Any]) -> bool:
    """Whether a quantization_config is of one of these schemes."""
    method = config.get("quant_method")
    if method == "compressed-tensors":
        return config.get("format") == "pack-quantized"
    return method in ("gptq", "awq")


def packing(config: Mapping[str, Any], stored: Mapping[str, TensorInfo]) -> Packing:
    """FormatError where the parts of a matrix do not fit together or do not fit `config`."""
    method = config["quant_method"]
    if method == "compressed-tensors":
        _check_groups(config)
        found = _compressed(stored)
    else:
        _check(config, _GPTQ_KEYS if method == "gptq" else _AWQ_KEYS, "quantization_config")
        found = _transposed(config, stored, is_awq=method == "awq")
    if not found:
        raise FormatError(
            f"config.json: quantization_config says '{method}', but no tensor is packed so",
            code="tensor_dtype",
        )
    tensors = dict(stored)
    unpack: dict[str, Unpack] = {}
    strips: dict[str, Strips] = {}
    for matrix in found:
        for part in matrix.parts:
            del tensors[part.name]
        info = replace(
            matrix.codes,
            name=matrix.name,
            dtype="F32",  # what read_rows gives
            shape=(matrix.n_rows, matrix.n_cols),
        )
        if matrix.name in tensors:
            raise FormatError(
                f"{info.path}: tensor '{matrix.name}' is stored packed and unpacked",
                code="tensor_overlap",
            )
        tensors[matrix.name] = info
        unpack[matrix.name] = matrix.rows
        strips[matrix.name] = matrix.strips
    return Packing(tensors, unpack, strips=strips, strip_format="L4_32")


def _transposed(
    config: Mapping[str, Any], stored: Mapping[str, TensorInfo], *, is_awq: bool
) -> list[PackedMatrix]:
    group = _group_size(config.get("group_size", -1), "quantization_config.group_size")
    is_v2 = "gptq_v2" in (config.get("checkpoint_format"), config.get("format"))
    matrices: list[PackedMatrix] = []
    for name, codes in stored.items():
        stem, _, leaf = name.rpartition(".")
        if leaf != "qweight":
            continue
        _is_words(codes)
        scales, zeros = (_part(stored, stem, part, codes) for part in ("scales", "qzeros"))
        index = None if is_awq else stored.get(f"{stem}.g_idx")
        n_cols, n_rows = codes.shape
        n_cols, n_rows = (n_cols, 8 * n_rows) if is_awq else (8 * n_cols, n_rows)
        n_groups = _n_groups(n_cols, group, codes)
        _has_shape(scales, (n_groups, n_rows), SCALE_DTYPES)
        _has_shape(zeros, (n_groups, n_rows // 8), ("I32",))
        if index is not None:
            _has_shape(index, (n_cols,), ("I32",))
        parts = tuple(part for part in (codes, scales, zeros, index) if part is not None)
        kind = AwqMatrix if is_awq else GptqMatrix
        shift = 0 if is_awq or is_v2 else 1
        matrices.append(
            kind(f"{stem}.weight", n_rows, n_cols, codes, scales, zeros, index, parts, shift)
        )
    return matrices


def _compressed(stored: Mapping[str, TensorInfo]) -> list[PackedMatrix]:
    matrices: list[PackedMatrix] = []
    for name, codes in stored.items():
        stem, _, leaf = name.rpartition(".")
        if leaf != "weight_packed":
            continue
        _is_words(codes)
        scales = _part(stored, stem, "weight_scale", codes)
        shape = _part(stored, stem, "weight_shape", codes)
        zeros = stored.get(f"{stem}.weight_zero_point")
        index = stored.get(f"{stem}.weight_g_idx")
        n_rows, n_cols = codes.shape[0], 8 * codes.shape[1]
        n_groups = scales.shape[1] if len(scales.shape) == 2 else 0
        if n_groups < 1 or n_cols % n_groups or (n_groups > 1 and n_cols // n_groups % TILE_K):
            raise _bad_groups(scales, n_cols)
        _has_shape(scales, (n_rows, n_groups), SCALE_DTYPES)
        _has_shape(shape, (2,), ("I32", "I64"))
        if zeros is not None:
            _has_shape(zeros, (-(-n_rows // 8), n_groups), ("I32",))
        if index is not None:
            _has_shape(index, (n_cols,), ("I32",))
        parts = tuple(p for p in (codes, scales, shape, zeros, index) if p is not None)
        matrices.append(
            CompressedMatrix(f"{stem}.weight", n_rows, n_cols, codes, scales, zeros, index, parts)
        )
    return matrices


def _check(config: Mapping[str, Any], keys: Mapping[str, Any], where: str) -> None:
    for key, allowed in keys.items():
        if key in config and config[key] not in allowed:
            raise UnsupportedError(
                f"config.json: {where}.{key} = {_short(config[key])} is not supported "
                f"(supported: {', '.join(map(str, allowed))})",
                code="spec_unsupported",
            )


def _check_groups(config: Mapping[str, Any]) -> None:
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise FormatError(
            "config.json: quantization_config has no config_groups", code="json_missing_key"
        )
    for name, group in groups.items():
        where = f"quantization_config.config_groups.{str(name)[:40]}"
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict):
            raise FormatError(f"config.json: {where} has no weights", code="json_type")
        _check(weights, _COMPRESSED_WEIGHTS, f"{where}.weights")
        if group.get("input_activations") is not None:
            raise UnsupportedError(
                f"config.json: {where}.input_activations is not supported (supported: null)",
                code="spec_unsupported",
            )


def _group_size(value: object, where: str) -> int | None:
    """Inputs of a group; None: all of them."""
    if value in (-1, None):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        if value % TILE_K == 0:
            return value
        raise UnsupportedError(
            f"config.json: {where} = {value} is not supported: groups must be multiples of "
            f"{TILE_K} inputs, or -1",
            code="spec_unsupported",
        )
    raise FormatError(f"config.json: {where} is {_short(value)}", code="json_type")


def _n_groups(n_cols: int, group: int | None, info: TensorInfo) -> int:
    if group is not None and n_cols % group:
        raise _bad_groups(info, n_cols)
    return 1 if group is None else n_cols // group


def _bad_groups(info: TensorInfo, n_cols: int) -> FormatError:
    return FormatError(
        f"{info.path}: tensor '{info.name}' {list(info.shape)}: {n_cols} inputs are not whole "
        f"groups of a multiple of {TILE_K}",
        code="tensor_shape",
    )


def _part(stored: Mapping[str, TensorInfo], stem: str, leaf: str, codes: TensorInfo) -> TensorInfo:
    found = stored.get(f"{stem}.{leaf}")
    if found is None:
        raise FormatError(
            f"{codes.path}: tensor '{codes.name}' has no '{stem}.{leaf}' beside it",
            code="tensor_missing",
        )
    return found


def _is_words(info: TensorInfo) -> None:
    if info.dtype != "I32" or len(info.shape) != 2 or 0 in info.shape:
        raise FormatError(
            f"{info.path}: tensor '{info.name}' is {info.dtype} {list(info.shape)}, it must be a "
            "matrix of I32",
            code="tensor_dtype",
        )


def _has_shape(info: TensorInfo, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
    if info.shape != shape or info.dtype not in dtypes:
        raise FormatError(
            f"{info.path}: tensor '{info.name}' is {info.dtype} {list(info.shape)}, the packed "
            f"weight asks for {' or '.join(dtypes)} {list(shape)}",
            code="tensor_shape",
        )


def _short(value: object) -> str:
    return repr(value)[:80]
