"""config.json, read key by key with the defaults of a family, every value checked.

Explicit nulls stay apart from keys that are absent: for some keys they mean another thing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import FormatError, UnsupportedError

from ..spec import MAX_LAYERS

MAX_INTEGER = 1 << 53  # which a float holds exactly; far beyond every range of the spec
# Keys that change nothing in the result, of whatever family.
CHANGES_NOTHING = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "attn_implementation",
        "attn_pdrop",
        "auto_map",
        "cache_implementation",
        "classifier_dropout",
        "dtype",
        "embd_pdrop",
        "hidden_dropout",
        "id2label",
        "initializer_range",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "pad_token_id",
        "pretraining_tp",  # splits the same matrices; the result is the same sum
        "resid_pdrop",
        "return_dict",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
# Key -> the values under which it changes nothing, the first being that of an absent key.
HONOURED_ONLY_AS: Mapping[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "is_causal": (True, None),
    "is_decoder": (False, True, None),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "tie_encoder_decoder": (False, None),
    "use_bidirectional_attention": (False, None),
}


class Config:
    """values: the JSON object. defaults: of all keys that the family reads."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.values, self._defaults = values, defaults

    def get(self, key: str) -> Any:
        """What stands there, a null as None; the default where the key is absent."""
        return self.values[key] if key in self.values else self._defaults[key]

    def knows(self, key: str) -> bool:
        """Whether the family reads this key."""
        return key in self._defaults

    def integer(self, key: str, layer: int | None = None) -> int:
        """FormatError for other types, and for a null where the default is one. layer: of this one,
        where there may be an array with an integer for each, as in pruned models."""
        value = self.optional_integer(key, layer)
        value = self._defaults[key] if value is None else value
        if value is None:
            raise FormatError(f"config.json: '{key}' is missing", code="json_missing_key")
        return int(value)

    def optional_integer(self, key: str, layer: int | None = None) -> int | None:
        value = self.get(key)
        if layer is not None and isinstance(value, list):
            n_layers = self.integer("num_hidden_layers")
            if len(value) != n_layers:
                raise FormatError(
                    f"config.json: '{key}' has {len(value)} entries for {n_layers} layers",
                    code="spec_invalid",
                )
            value = value[layer]
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise FormatError(f"config.json: '{key}' must be an integer", code="json_type")
        if abs(value) > MAX_INTEGER:
            raise FormatError(
                f"config.json: '{key}' is larger than {MAX_INTEGER}", code="spec_invalid"
            )
        return value

    def number(self, key: str) -> float:
        """A null takes the default."""
        value = self.get(key)
        return as_number(self._defaults[key] if value is None else value, key)

    def boolean(self, key: str) -> bool:
        """A null takes the default."""
        value = self.get(key)
        value = self._defaults[key] if value is None else value
        if not isinstance(value, bool):
            raise FormatError(f"config.json: '{key}' must be true or false", code="json_type")
        return value

    def one_of(self, key: str, meanings: Mapping[str, str]) -> str:
        """What the text there means. UnsupportedError names those that are known."""
        value = self.get(key)
        if not isinstance(value, str) or value not in meanings:
            raise not_supported(key, value, meanings)
        return meanings[value]

    def items(self, key: str, n: int, kind: type) -> list[Any] | None:
        """An array of n or more values of a type, None if absent or null."""
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, list) and len(value) > MAX_LAYERS:
            raise FormatError(
                f"config.json: '{key}' has {len(value)} entries, at most {MAX_LAYERS} are read",
                code="spec_invalid",
            )
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise FormatError(
                f"config.json: '{key}' must be an array of {kind.__name__}", code="json_type"
            )
        if len(value) < n:
            raise FormatError(
                f"config.json: '{key}' has {len(value)} entries, {n} are needed",
                code="spec_invalid",
            )
        return value

    def token_ids(self, key: str, generation: Mapping[str, Any]) -> tuple[int, ...]:
        """generation_config.json wins over config.json, as in generate(); null means none."""
        value = generation[key] if key in generation else self.get(key)
        if value is None:
            value = self.values.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        for token_id in ids:
            if not isinstance(token_id, int) or isinstance(token_id, bool):
                raise FormatError(
                    f"config.json: '{key}' must hold token ids, not {short(token_id)}",
                    code="json_type",
                )
        return tuple(dict.fromkeys(ids))

    def check_honoured(self, only: Mapping[str, tuple[Any, ...]]) -> None:
        """UnsupportedError for a key that would change something and is not honoured."""
        for key, allowed in only.items():
            value = self.values.get(key, allowed[0])
            if not any(value == item and type(value) is type(item) for item in allowed):
                raise not_supported(key, value, allowed)


def by_layer(values: Sequence[int]) -> int | list[int]:
    """How config.json says a number of every layer: once, or as an array where they differ."""
    return values[0] if len(set(values)) == 1 else list(values)


def is_bare(config: Mapping[str, Any]) -> bool:
    """Whether the class is one without a head: Qwen3Model, not Qwen3ForCausalLM."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    return isinstance(name, str) and name.endswith("Model") and not name.endswith("LMHeadModel")


def not_supported(
    key: str, value: object, supported: Sequence[Any] | Mapping[str, Any]
) -> UnsupportedError:
    return UnsupportedError(
        f"config.json: {key} = {short(value)} is not supported (supported: "
        f"{', '.join(map(str, supported))})",
        code="spec_unsupported",
    )


def as_number(value: object, key: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise FormatError(f"config.json: '{key}' must be a number", code="json_type")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise FormatError(f"config.json: '{key}' is larger than {MAX_INTEGER}", code="spec_invalid")
    return float(value)


def as_positive(value: object, key: str) -> float:
    number = as_number(value, key)
    if not (math.isfinite(number) and number > 0):
        raise FormatError(
            f"config.json: '{key}' is {number}, it must be positive", code="spec_invalid"
        )
    return number


def short(value: object) -> str:
    return repr(value)[:80]
