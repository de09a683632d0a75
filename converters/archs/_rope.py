"""Rotary frequencies: what config.json says of them, and the tables that follow from it.

The formulas are those of transformers' modeling_rope_utils.py, operation by operation in float32;
a power is taken in float64 and rounded once, where torch's own float32 power is off in the last bit
for about one base and exponent in 200. "dynamic" scaling is refused: it depends on the length of
the text so far, and with it every key that was stored would have to be computed again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import FormatError, UnsupportedError

from ._config import Config, as_number, as_positive, not_supported, short

F32Array = npt.NDArray[np.float32]

_ORIGINAL = "original_max_position_embeddings"
# Kind -> (parameters that it needs, parameters that it may have).
_KINDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "default": (frozenset(), frozenset()),
    "linear": (frozenset({"factor"}), frozenset()),
    "llama3": (
        frozenset({"factor", "low_freq_factor", "high_freq_factor", _ORIGINAL}),
        frozenset(),
    ),
    "yarn": (
        frozenset({"factor", _ORIGINAL}),
        frozenset(
            {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
        ),
    ),
    "longrope": (
        frozenset({"short_factor", "long_factor", _ORIGINAL}),
        frozenset({"factor", "attention_factor"}),
    ),
}
_LISTS = ("short_factor", "long_factor")


@dataclass(frozen=True)
class Rope:
    """n_rope: dimensions that turn. values: the checked parameters of the kind. n_ctx: the
    context that config.json gives."""

    kind: str
    theta: float
    n_rope: int
    values: Mapping[str, Any]
    n_ctx: int

    def table(self, *, long: bool = False) -> F32Array:
        """Frequencies [n_rope / 2]. long: those of LongRoPE beyond the original context.
        FormatError: parameters so extreme that a frequency is 0 or infinite."""
        with np.errstate(all="ignore"):
            table = self._table(long)
        if not (np.isfinite(table).all() and (table > 0).all()):
            raise FormatError(
                f"config.json: rope type '{self.kind}': its parameters give frequencies that are "
                "0 or infinite",
                code="spec_invalid",
            )
        return table

    def _table(self, long: bool) -> F32Array:
        exponents = np.arange(0, self.n_rope, 2, dtype=np.float32) / np.float32(self.n_rope)
        power: F32Array = np.power(np.float64(self.theta), exponents.astype(np.float64)).astype(
            np.float32
        )
        if self.kind == "longrope":
            factors = np.array(self.values[_LISTS[long]], dtype=np.float32)
            return np.float32(1.0) / (factors * power)
        inv_freq = np.float32(1.0) / power
        if self.kind == "linear":
            slower: F32Array = inv_freq / np.float32(self.values["factor"])
            return slower
        if self.kind == "llama3":
            return _llama3(inv_freq, self.values)
        return self._yarn(power) if self.kind == "yarn" else inv_freq

    @property
    def factor(self) -> float:
        """What cos and sin are multiplied by."""
        given = self.values.get("attention_factor")
        if given is not None or self.kind not in ("yarn", "longrope"):
            return 1.0 if given is None else float(given)
        if self.kind == "yarn":
            return _yarn_factor(self.values)
        factor, original = self.values.get("factor"), self.values[_ORIGINAL]
        scale = self.n_ctx / original if factor is None else factor
        return 1.0 if scale <= 1 else math.sqrt(1 + math.log(scale) / math.log(original))

    @property
    def n_ctx_original(self) -> int:
        """The context beyond which another table holds; 0 if there is one table only."""
        return int(self.values[_ORIGINAL]) if self.kind == "longrope" else 0

    def _yarn(self, power: F32Array) -> F32Array:
        """Dimensions that turn often keep their frequency, those that turn seldom are slowed by
        the factor, with a ramp between (Peng et al. 2023, arXiv:2309.00071)."""
        f32, values = np.float32, self.values

        def dimension(n_turns: float) -> float:
            waves = values[_ORIGINAL] / (n_turns * 2 * math.pi)
            return self.n_rope * math.log(waves) / (2 * math.log(self.theta))

        low = dimension(values.get("beta_fast") or 32)
        high = dimension(values.get("beta_slow") or 1)
        if values.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.n_rope - 1)
        span = high - low or 0.001
        ramp = (np.arange(self.n_rope // 2, dtype=np.float32) - f32(low)) / f32(span)
        kept = f32(1) - np.clip(ramp, f32(0), f32(1))
        slowed = f32(1) / (f32(values["factor"]) * power)
        inv_freq: F32Array = slowed * (f32(1) - kept) + f32(1) / power * kept
        return inv_freq


def read_rope(config: Config, head_dim: int) -> Rope:
    """From flat keys (rope_theta, rope_scaling), or the newer rope_parameters."""
    parameters: dict[str, Any] = {"rope_theta": config.get("rope_theta")}
    for key in ("rope_scaling", "rope_parameters"):
        parameters |= rope_object(config, key)
    return rope_of(config, parameters, head_dim)


def rope_object(config: Config, key: str) -> dict[str, Any]:
    """The JSON object under a key, empty if there is none."""
    value = config.get(key)
    if value is not None and not isinstance(value, dict):
        raise FormatError(f"config.json: '{key}' must be an object", code="json_type")
    return dict(value or {})


def rope_of(config: Config, parameters: Mapping[str, Any], head_dim: int) -> Rope:
    """parameters: one flat object. UnsupportedError for a kind or parameter that is not known."""
    given = {key: value for key, value in parameters.items() if value is not None}
    older = given.pop("type", None)
    kind = given.pop("rope_type", None) or older or "default"
    if kind in ("su", "yarn") and "short_factor" in given:
        kind = "longrope"  # older names of it
    if kind not in _KINDS:
        raise UnsupportedError(
            f"config.json: rope type {short(kind)} is not supported (supported: "
            f"{', '.join(_KINDS)})",
            code="spec_unsupported",
        )
    theta = as_positive(given.pop("rope_theta", None), "rope_theta")
    partial = given.pop("partial_rotary_factor", None)
    n_ctx = config.integer("max_position_embeddings")
    needed, optional = _KINDS[kind]
    _settle_original(config, given, kind, n_ctx)
    unknown = sorted(set(given) - needed - optional)
    if unknown:
        raise UnsupportedError(
            f"config.json: rope parameter '{unknown[0]}' is not supported for type '{kind}'",
            code="spec_unsupported",
        )
    n_rope = _n_rope(config, partial, head_dim)
    values = _checked(given, needed, n_rope)
    if kind in ("yarn", "longrope") and not (theta > 1 and values[_ORIGINAL] > 1):
        raise FormatError(
            f"config.json: rope type '{kind}' needs rope_theta and {_ORIGINAL} above 1",
            code="spec_invalid",
        )
    if kind == "llama3" and values["high_freq_factor"] <= values["low_freq_factor"]:
        raise FormatError(
            "config.json: high_freq_factor must be greater than low_freq_factor",
            code="spec_invalid",
        )
    return Rope(kind, theta, n_rope, values, n_ctx)


def _settle_original(config: Config, given: dict[str, Any], kind: str, n_ctx: int) -> None:
    """The context before scaling: beside the rope parameters, among them, or the whole one."""
    beside = config.get(_ORIGINAL)
    if _ORIGINAL in _KINDS[kind][0]:
        given[_ORIGINAL] = given.get(_ORIGINAL, n_ctx) if beside is None else beside
    else:
        given.pop(_ORIGINAL, None)


def _n_rope(config: Config, partial: object, head_dim: int) -> int:
    """Dimensions of a head that turn, of a share given among the rope parameters or beside."""
    honoured = config.knows("partial_rotary_factor")
    share = config.get("partial_rotary_factor") if partial is None and honoured else partial
    if share is None:
        return head_dim
    number = as_positive(share, "partial_rotary_factor")
    if number > 1 or (number != 1 and not honoured):
        raise not_supported("partial_rotary_factor", share, ("1",))
    return int(head_dim * number)


def _checked(given: Mapping[str, Any], needed: frozenset[str], n_rope: int) -> dict[str, Any]:
    for key in sorted(needed - set(given)):
        raise FormatError(
            f"config.json: rope parameter '{key}' is missing", code="json_missing_key"
        )
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key in _LISTS:
            values[key] = _factors(value, key, n_rope)
        elif key == "truncate":
            if not isinstance(value, bool):
                raise FormatError("config.json: 'truncate' must be true or false", code="json_type")
            values[key] = value
        elif key in ("mscale", "mscale_all_dim"):
            values[key] = as_number(value, key)  # 0: not given
        else:
            values[key] = as_positive(value, f"rope parameter {key}")
    return values


def _factors(value: object, key: str, n_rope: int) -> list[float]:
    if not isinstance(value, list) or len(value) != n_rope // 2:
        raise FormatError(
            f"config.json: '{key}' must be an array of {n_rope // 2} numbers", code="spec_invalid"
        )
    return [as_positive(item, key) for item in value]


def _yarn_factor(values: Mapping[str, Any]) -> float:
    def mscale(weight: float) -> float:
        scale = values["factor"]
        return 1.0 if scale <= 1 else 0.1 * weight * math.log(scale) + 1.0

    one, all_dims = values.get("mscale"), values.get("mscale_all_dim")
    return mscale(one) / mscale(all_dims) if one and all_dims else mscale(1.0)


def _llama3(inv_freq: F32Array, values: Mapping[str, Any]) -> F32Array:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated."""
    f32 = np.float32
    n_old, low, high = values[_ORIGINAL], values["low_freq_factor"], values["high_freq_factor"]
    factor = f32(values["factor"])
    wavelen = f32(2 * math.pi) / inv_freq
    slowed = np.where(wavelen > f32(n_old / low), inv_freq / factor, inv_freq)
    smooth = (f32(n_old) / wavelen - f32(low)) / f32(high - low)
    between = (f32(1) - smooth) * slowed / factor + smooth * slowed
    is_between = ~(wavelen < f32(n_old / high)) & ~(wavelen > f32(n_old / low))
    return np.where(is_between, between, slowed).astype(np.float32)
