"""Reads what a GGUF file that is being written will say, and compares it with what it should.

Run on the header, before a weight is encoded: what the keys cannot say is found here by the reader
itself, whatever it is.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..gguf.architectures import in_layers
from ..gguf.checkpoint import GgufCheckpoint
from ..plan import Job, Options
from ..spec import ModelSpec
from .gguf_keys import Target, refused
from .gguf_rope import SAME

_F32 = 1e-6  # relative; keys hold 32 bits


def check_header(path: Path, job: Job, target: Target) -> None:
    """path: a file whose tensors need not have their weights yet, those of rotary positions
    excepted. UnsupportedError names what would be read otherwise."""
    with GgufCheckpoint(path) as checkpoint:
        checkpoint.tokenizer_description()
        found = Job(checkpoint, Options("F16", None, None, None))
    wrong = _differences(target.spec, found.spec)
    for name, table in job.tables.items():
        other = found.tables.get(name)
        if other is None or not np.allclose(other, table, rtol=SAME, atol=0):
            wrong.append(f"rotary frequencies ({name})")
    if wrong:
        raise refused(target.arch, wrong)
    lost = sorted(set(target.spec.eos_ids) - set(found.spec.eos_ids))
    if lost:
        job.warnings.append(f"the file does not say that tokens {lost} end a text, too")
    if target.spec.bos_id != found.spec.bos_id:
        job.warnings.append(f"the file does not say that {target.spec.bos_id} begins a text")


def _differences(wanted: ModelSpec, found: ModelSpec) -> list[str]:
    left, right = asdict(wanted), asdict(found)
    for value in (left, right):
        for key in ("arch", "bos_id", "eos_ids"):
            value.pop(key)
    layers = [*zip(left.pop("layers"), right.pop("layers"), strict=True)]
    return [
        *_between(left, right),
        *in_layers([_between(one, other) for one, other in layers]),
    ]


def _between(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [
        f"{key} {value} (read again, it is {found[key]})"
        for key, value in wanted.items()
        if not _same(value, found[key])
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_F32)
    return bool(one == other)
