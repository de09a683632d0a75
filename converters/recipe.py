"""Recipe: which tensor gets which format. Ordered rules over roles, the first match wins.

Says nothing of bytes or of how a format is encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from edgellm.errors import InvalidArgumentError

from .quant import QUANT_FORMATS, quant_format

ACTS = ("a8", "f32")
EMBED_ROLE = "token_embd"
HEAD_ROLE = "output"
VECTOR_ROLES = ("attn_norm", "ffn_norm", "output_norm", "rope_inv_freq")


@dataclass(frozen=True)
class Rule:
    """Tensors whose role matches `pattern` (shell style) get `format` and `act`."""

    pattern: str
    format: str
    act: str | None  # None: a vector, which meets no activations


@dataclass(frozen=True)
class Recipe:
    name: str
    rules: tuple[Rule, ...]

    def choose(self, role: str) -> Rule:
        for rule in self.rules:
            if fnmatchcase(role, rule.pattern):
                return rule
        raise InvalidArgumentError(
            f"recipe '{self.name}' has no rule for tensors of role '{role}'",
            code="invalid_argument",
        )

    def formats(self, roles: Iterable[str]) -> tuple[str, ...]:
        """The formats in use for these roles, in order of first use, vectors left out."""
        chosen = [self.choose(role) for role in roles]
        return tuple(dict.fromkeys(rule.format for rule in chosen if rule.act is not None))

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


def preset(
    format: str = "E4_16",
    *,
    embed_format: str | None = None,
    head_format: str | None = None,
    act: str | None = None,
    tied_head: bool = False,
) -> Recipe:
    """All matrices in `format`, the embedding and the head in their own where asked.

    act: None takes each format's default (a8 for E formats, f32 for F16).
    """
    if tied_head and head_format is not None and head_format != (embed_format or format):
        raise InvalidArgumentError(
            "head_format: the head of this model is its embedding table; set embed_format",
            code="invalid_argument",
        )
    rules = [Rule(role, "F32", None) for role in VECTOR_ROLES]
    if embed_format is not None:
        rules.append(_matrix_rule(EMBED_ROLE, embed_format, act))
    if head_format is not None:
        rules.append(_matrix_rule(HEAD_ROLE, head_format, act))
    rules.append(_matrix_rule("*", format, act))
    return Recipe(name=format, rules=tuple(rules))


def _matrix_rule(pattern: str, format: str, act: str | None) -> Rule:
    default_act = quant_format(format).default_act
    if act is not None and act not in ACTS:
        raise InvalidArgumentError(
            f"act '{act}' is not known (known: {', '.join(ACTS)})", code="invalid_argument"
        )
    # F16 has no integer kernel; the override is for the formats that have both.
    return Rule(pattern, format, default_act if format == "F16" else act or default_act)


def preset_names() -> tuple[str, ...]:
    return tuple(QUANT_FORMATS)
