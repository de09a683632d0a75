"""Tensor types of GGUF: their blocks, and the weight format of ours that each becomes.

FORMATS is the one place where a type chooses its format. Sizes are those of ggml's ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgellm.errors import UnsupportedError


@dataclass(frozen=True)
class GgmlType:
    """n_weights weights of a row stand in n_bytes."""

    name: str
    n_weights: int
    n_bytes: int


# By the number that stands in a file.
TYPES: Mapping[int, GgmlType] = {
    number: GgmlType(name, n_weights, n_bytes)
    for number, name, n_weights, n_bytes in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (20, "IQ4_NL", 32, 18),
        (23, "IQ4_XS", 256, 136),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
    )
}
BY_NAME: Mapping[str, GgmlType] = {item.name: item for item in TYPES.values()}
NUMBERS: Mapping[str, int] = {item.name: number for number, item in TYPES.items()}
PLAIN = ("F32", "F16", "BF16")  # one number after the other
_REFUSED: Mapping[int, str] = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    40: "NVFP4",
    41: "Q1_0",
}


@dataclass(frozen=True)
class Choice:
    """exact: the format that holds the type's numbers as they are, if there is one. nearest: the
    one to round them to, where they cannot be kept (scaled on the way in) or nothing holds them."""

    nearest: str
    exact: str | None = None


# A type that is not here (F32, F16, BF16) has the numbers of an ordinary checkpoint: its tensors go
# to the formats of the default recipe, beside others that are quantized to F16.
FORMATS: Mapping[str, Choice] = {
    "Q4_0": Choice("E6_16", exact="L4_32"),
    "Q4_1": Choice("E6_16"),
    "Q5_0": Choice("E6_16"),
    "Q5_1": Choice("E6_16"),
    "Q8_0": Choice("E8_32", exact="L8_32"),
    "Q2_K": Choice("E6_16"),
    "Q3_K": Choice("E6_16"),
    "Q4_K": Choice("E6_16", exact="K4_32"),
    "Q5_K": Choice("E6_16"),
    "Q6_K": Choice("E6_16"),
    "IQ4_NL": Choice("E6_16"),
    "IQ4_XS": Choice("E6_16"),
    "MXFP4": Choice("E6_16"),
    "TQ1_0": Choice("E6_16", exact="L4_32"),
    "TQ2_0": Choice("E6_16", exact="L4_32"),
}


def ggml_type(number: int, where: str) -> GgmlType:
    """UnsupportedError names a type that cannot be read, and what to take instead."""
    found = TYPES.get(number)
    if found is not None:
        return found
    name = _REFUSED.get(number)
    what = f"type {name}" if name else f"a type with the number {number}, which is not known"
    raise UnsupportedError(
        f"{where}: {what} cannot be read (readable are {', '.join(BY_NAME)}); take the same model "
        "in Q4_K_M, Q8_0 or F16, or its Hugging Face directory",
        code="tensor_dtype",
    )
