"""Rotary positions of a model as keys and tensors of GGUF.

A model of which only the tables are known (a converted one) has them written as what they are: a
base, a base and a factor, or, where the architecture has a place for them, frequencies one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..archs._config import Config
from ..archs._family import Family
from ..archs._rope import Rope
from ..gguf.arch import GgufArch
from ..gguf.architectures import FREQS, LONGROPE, Architecture
from ..plan import Job

F32Array = npt.NDArray[np.float32]

SAME = 1e-5  # relative; two ways to compute a rotary frequency
_ANY_THETA = 10000.0  # where every frequency is written by itself
_YARN_KEYS: Mapping[str, tuple[str, type]] = {
    "factor": ("rope.scaling.factor", float),
    "original_max_position_embeddings": ("rope.scaling.original_context_length", int),
    "beta_fast": ("rope.scaling.yarn_beta_fast", float),
    "beta_slow": ("rope.scaling.yarn_beta_slow", float),
}


@dataclass(frozen=True)
class Rotation:
    """keys: without the architecture in front. tensors: float32 vectors. missing: what there is no
    way to say; the rest is of no use then."""

    keys: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, F32Array] = field(default_factory=dict)
    missing: str = ""


def rotation(job: Job, kind: Architecture) -> Rotation:
    """How `job` turns queries and keys, for files of architecture `kind`."""
    spec = job.spec
    if not spec.n_rope:
        return Rotation()
    keys: dict[str, Any] = {"rope.dimension_count": spec.n_rope}
    known = _known(job)
    if "rope_inv_freq_long" in job.tables:
        return _longrope(job, kind, known, keys)
    local = job.tables.get("rope_inv_freq_local")
    if local is not None:
        theta, factor = _fitted(local) or (0.0, 0.0)
        if factor != 1:
            return Rotation(missing="local rotary positions other than plain ones")
        keys["rope.freq_base_swa"] = theta
    table = job.tables["rope_inv_freq"]
    theta, factor = _base(known) or _fitted(table) or (_ANY_THETA, 1.0)
    plain = 1 / _powers(theta, spec.n_rope)
    keys["rope.freq_base"] = theta
    if known is not None and known.kind == "yarn":
        return _yarn(known, keys)
    if spec.rope_factor != 1:
        return Rotation(missing="YaRN, whose parameters only the original model has")
    if np.allclose(plain / factor, table, rtol=SAME, atol=0):
        scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        return Rotation(keys | (scaling if factor != 1 else {}))
    if FREQS not in kind.scalings:
        return Rotation(missing="scaled rotary frequencies")
    factors = (plain / table).astype(np.float32)
    return Rotation(keys, {f"{FREQS}.weight": factors})


def _known(job: Job) -> Rope | None:
    """What the configuration says, where there is one."""
    arch = job.arch
    family = arch.family if isinstance(arch, GgufArch) else arch
    if not isinstance(family, Family):
        return None
    return family.rope(Config(job.config, family.defaults))


def _base(known: Rope | None) -> tuple[float, float] | None:
    """(theta, linear factor)"""
    if known is None:
        return None
    return known.theta, known.values["factor"] if known.kind == "linear" else 1.0


def _powers(theta: float, n_rope: int) -> npt.NDArray[np.float64]:
    return np.power(theta, np.arange(0, n_rope, 2) / n_rope)


def _fitted(table: F32Array) -> tuple[float, float] | None:
    """(theta, linear factor) of a table, if there are such."""
    n_rope = 2 * len(table)
    first, last = float(table[0]), float(table[-1])
    factor = _rounded(1 / first)
    theta = _ANY_THETA
    if n_rope > 2:
        theta = _rounded((last / first) ** (-n_rope / (n_rope - 2)))
    same = np.allclose(1 / _powers(theta, n_rope) / factor, table, rtol=SAME, atol=0)
    return (theta, factor) if same else None


def _rounded(value: float) -> float:
    """To what a person may have written."""
    return float(f"{value:.5g}")


def _yarn(known: Rope, keys: dict[str, Any]) -> Rotation:
    usual = 0.1 * math.log(known.values["factor"]) + 1 if known.values["factor"] > 1 else 1.0
    if not math.isclose(known.factor, usual, rel_tol=1e-6):
        return Rotation(missing="YaRN with an attention factor of its own")
    found = {
        key: convert(known.values[name])
        for name, (key, convert) in _YARN_KEYS.items()
        if known.values.get(name)
    }
    return Rotation({**keys, "rope.scaling.type": "yarn", **found})


def _longrope(job: Job, kind: Architecture, known: Rope | None, keys: dict[str, Any]) -> Rotation:
    if LONGROPE not in kind.scalings:
        return Rotation(missing="LongRoPE")
    theta = _ANY_THETA if known is None else known.theta
    keys |= {
        "rope.freq_base": theta,
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": job.spec.n_ctx_original,
        "rope.scaling.attn_factor": job.spec.rope_factor,
    }
    powers = _powers(theta, job.spec.n_rope)
    tables = {"short": "rope_inv_freq", "long": "rope_inv_freq_long"}
    tensors = {}
    for name, table in tables.items():
        given = None if known is None else known.values[f"{name}_factor"]
        factors = 1 / (powers * job.tables[table]) if given is None else np.array(given)
        tensors[f"{LONGROPE}_{name}.weight"] = factors.astype(np.float32)
    return Rotation(keys, tensors)
