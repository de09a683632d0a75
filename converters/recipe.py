"""Recipe: which tensor gets which format by which method. Ordered rules, the first match wins.

Says nothing of bytes or of how a format is encoded. recipe_file.py reads recipes from TOML.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from edgellm.errors import InvalidArgumentError

from .layout import KEY_BALANCE_ROLES
from .quant import QUANT_FORMATS, quant_format
from .quant.methods import Method, check_format

RTN = Method("rtn")
CALIBRATED_METHOD = Method("gptq")
# What `edgellm convert` takes when no format is named, by role: the fewest bytes that a token reads
# at no more divergence than llama.cpp's Q4_K_M has (measured in docs/COMPRESSION.md).
DEFAULT_FORMATS = {"token_embd": "E6_16", "output": "E6_16", "attn_*": "E4_16", "*": "E4_32"}
ACTS = ("a8", "a8x2", "f32")
AUTO_ACT = "auto"  # the cheapest of ACTS that costs the model no more than act_kl
SCALES = ("awq", "smooth")
EMBED_ROLE = "token_embd"
HEAD_ROLE = "output"
VECTOR_ROLES = ("*_norm", "*_bias", "rope_inv_freq*", "conv_taps", *KEY_BALANCE_ROLES)
# Small, and errors in them cost much: which expert, how much of one, which position.
FAITHFUL_ROLES = ("position_embd", "ffn_router", "ffn_gate_inp_shexp")


@dataclass(frozen=True)
class Rule:
    """Tensors whose role or name matches `pattern` (shell style) get `format` and `act`.

    scale: how the input channels are scaled before the codes are chosen, the scales being folded
    into the operator before (calibrate/scaling.py); None: not at all. act_kl: of act "auto",
    the divergence in nats per token that rounding the tensor's inputs may add to the model.
    """

    pattern: str
    format: str
    act: str | None  # None: a vector, which meets no activations
    method: Method = RTN
    scale: str | None = None
    act_kl: float = 1e-5


@dataclass(frozen=True)
class CalibrationOptions:
    """How much text: n_windows windows of window_tokens tokens each, every one from position 0."""

    n_windows: int = 128
    window_tokens: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.n_windows <= 1 << 16 or not 8 <= self.window_tokens <= 1 << 16:
            raise InvalidArgumentError(
                "calibration takes 1 to 65536 windows of 8 to 65536 tokens",
                code="invalid_argument",
            )


@dataclass(frozen=True)
class Recipe:
    """rotate_values: the values that the KV cache will hold are rotated (rotation.py), for KV
    formats of 4 bits. rotate_keys, balance_keys: the runtime rotates and balances (key_balance.py)
    queries and keys; None: where that is measured to help."""

    name: str
    rules: tuple[Rule, ...]
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    rotate_values: bool = False
    rotate_keys: bool | None = None
    balance_keys: bool | None = None

    def choose(self, role: str, name: str = "") -> Rule:
        for rule in self.rules:
            if fnmatchcase(role, rule.pattern) or fnmatchcase(name, rule.pattern):
                return rule
        raise InvalidArgumentError(
            f"recipe '{self.name}' has no rule for tensors of role '{role}'",
            code="invalid_argument",
        )

    def formats(self, roles: Iterable[str]) -> tuple[str, ...]:
        """The formats in use for these roles, in order of first use, vectors left out."""
        chosen = [self.choose(role) for role in roles]
        return tuple(dict.fromkeys(rule.format for rule in chosen if rule.act is not None))

    def to_json(self, calibration_sha256: str | None = None) -> str:
        """As stored in the file. What is left at its default is left out."""
        rules = []
        for rule in self.rules:
            entry = asdict(rule)
            entry["method"] = {"name": rule.method.name, **rule.method.parameters}
            if rule.method == RTN:
                del entry["method"]
            if rule.act != AUTO_ACT:
                del entry["act_kl"]
            if rule.scale is None:
                del entry["scale"]
            rules.append(entry)
        value: dict[str, Any] = {"name": self.name, "rules": rules}
        if self.rotate_values:
            value["rotate_values"] = True
        if self.rotate_keys is not None:
            value["rotate_keys"] = self.rotate_keys
        if self.balance_keys is not None:
            value["balance_keys"] = self.balance_keys
        if calibration_sha256 is not None:
            value["calibration"] = {**asdict(self.calibration), "sha256": calibration_sha256}
        return json.dumps(value, separators=(",", ":"))


def preset(
    format: str,
    *,
    embed_format: str | None = None,
    head_format: str | None = None,
    act: str | None = None,
    tied_head: bool = False,
    calibrated: bool = False,
) -> Recipe:
    """All matrices in `format`, the embedding and the head in their own where asked.

    act: None takes each format's default (a8 for E formats, f32 for F16). calibrated: the matrices
    of the layers by CALIBRATED_METHOD; embedding and head are rounded to nearest.
    """
    return _by_role(format, {"*": format}, embed_format, head_format, act, tied_head, calibrated)


def default_recipe(
    *,
    embed_format: str | None = None,
    head_format: str | None = None,
    act: str | None = None,
    tied_head: bool = False,
    calibrated: bool = False,
) -> Recipe:
    """DEFAULT_FORMATS, as preset() has one format; those of embedding and head can be chosen."""
    formats = DEFAULT_FORMATS
    return _by_role("default", formats, embed_format, head_format, act, tied_head, calibrated)


def _by_role(
    name: str,
    formats: Mapping[str, str],
    embed_format: str | None,
    head_format: str | None,
    act: str | None,
    tied_head: bool,
    calibrated: bool,
) -> Recipe:
    embed = embed_format or _first_match(formats, EMBED_ROLE)
    head = head_format or _first_match(formats, HEAD_ROLE)
    if tied_head and head_format not in (None, embed):
        raise InvalidArgumentError(
            "head_format: the head of this model is its embedding table; set embed_format",
            code="invalid_argument",
        )
    rules = [matrix_rule(EMBED_ROLE, embed, act), matrix_rule(HEAD_ROLE, head, act)]
    for pattern, format in formats.items():
        if pattern not in (EMBED_ROLE, HEAD_ROLE):
            can_search = calibrated and quant_format(format).pack is not None
            method = CALIBRATED_METHOD if can_search else RTN
            rules.append(matrix_rule(pattern, format, act, method))
    return Recipe(name=name, rules=(*vector_rules(), *rules))


def _first_match(formats: Mapping[str, str], role: str) -> str:
    return next(format for pattern, format in formats.items() if fnmatchcase(role, pattern))


def matrix_rule(
    pattern: str,
    format: str,
    act: str | None,
    method: Method | None = None,
    scale: str | None = None,
    act_kl: float | None = None,
) -> Rule:
    """A rule for matrices; UnsupportedError, InvalidArgumentError for names that are not known."""
    default_act = quant_format(format).default_act
    if act is not None and act not in (*ACTS, AUTO_ACT):
        raise InvalidArgumentError(
            f"act '{act}' is not known (known: {', '.join((*ACTS, AUTO_ACT))})",
            code="invalid_argument",
        )
    if act_kl is not None and (act != AUTO_ACT or not 0 < act_kl < math.inf):
        raise InvalidArgumentError(
            f"act_kl is for act '{AUTO_ACT}' and above 0", code="invalid_argument"
        )
    check_format(method or RTN, format)
    if scale is not None and scale not in SCALES:
        raise InvalidArgumentError(
            f"scale '{scale}' is not known (known: {', '.join(SCALES)})", code="invalid_argument"
        )
    # F16 has no integer kernel; the override is for the formats that have both.
    chosen_act = default_act if format == "F16" else act or default_act
    limit = Rule.act_kl if act_kl is None else act_kl
    return Rule(pattern, format, chosen_act, method or RTN, scale, limit)


def keeping_rules(
    formats: Mapping[str, str], roles: Mapping[str, str], act: str | None
) -> tuple[Rule, ...]:
    """Rules that give each matrix of `formats` its own. roles: of all matrices, by name."""
    outer = [name for name in formats if name in (EMBED_ROLE, HEAD_ROLE)]
    patterns = {name: formats[name] for name in sorted(outer)}
    in_layers = [name for name in roles if name not in (EMBED_ROLE, HEAD_ROLE)]
    there = [formats.get(name) for name in in_layers]
    if len(set(there)) == 1 and there[0] is not None:
        patterns["layers.*"] = there[0]
    else:
        patterns |= _by_roles({name: formats.get(name) for name in in_layers}, roles)
    return tuple(matrix_rule(pattern, format, act) for pattern, format in patterns.items())


def _by_roles(formats: Mapping[str, str | None], roles: Mapping[str, str]) -> dict[str, str]:
    """One pattern for the format that most matrices of a role have, and before these the names of
    the others. A role with a matrix that has none is not named as a whole."""
    names: dict[str, str] = {}
    whole: dict[str, str] = {}
    for role in sorted({roles[name] for name in formats}):
        of_role = {name: format for name, format in formats.items() if roles[name] == role}
        counts = Counter(of_role.values())
        if None not in counts:
            whole[role] = str(counts.most_common(1)[0][0])
        names |= {
            name: format
            for name, format in sorted(of_role.items())
            if format is not None and format != whole.get(role)
        }
    return names | whole


def vector_rules() -> tuple[Rule, ...]:
    """First in every recipe: vectors are stored as they are, and a few matrices in F16."""
    vectors = tuple(Rule(role, "F32", None) for role in VECTOR_ROLES)
    return vectors + tuple(Rule(role, "F16", "f32") for role in FAITHFUL_ROLES)


def preset_names() -> tuple[str, ...]:
    return tuple(QUANT_FORMATS)
