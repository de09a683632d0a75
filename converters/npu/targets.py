"""The vendors: what each takes, and how a graph is written for it. A line in TARGETS for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.errors import InvalidArgumentError
from edgellm.npu.host import MASKED

from .ir import KINDS
from .written import GraphWriter

GIB = 1 << 30


@dataclass(frozen=True)
class Target:
    """extra: the installation that writes it. writer: of a folder. kinds: the operators it has.
    max_bytes: of the constants of one graph. settings: what its executor is told."""

    name: str
    extra: str
    writer: Callable[[Path], GraphWriter]
    kinds: frozenset[str] = KINDS
    max_bytes: int = 64 * GIB
    kv_dtype: str = "f16"
    masked: float = MASKED
    settings: Mapping[str, str] = field(default_factory=dict)


def _onnx(folder: Path) -> GraphWriter:
    from .onnx_lowering import OnnxWriter

    return OnnxWriter(folder)


TARGETS = {target.name: target for target in (Target("ort", "npu", _onnx),)}
PREFIX = "npu:"


def find_target(name: str) -> Target:
    """Of "npu:ort" and so on; InvalidArgumentError lists the names."""
    found = TARGETS.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if found is None:
        known = ", ".join(PREFIX + one for one in TARGETS)
        raise InvalidArgumentError(
            f"target '{name}' is not known (known: {known})", code="invalid_argument"
        )
    return found
