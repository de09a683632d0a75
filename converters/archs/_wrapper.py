"""Models that also see or hear: what their config.json says of the language model inside.

The language model is converted, and the report says which tensors were left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.errors import FormatError

_INNER = ("text_config", "llm_config", "language_config")
# Keys beside the inner object that speak of the language model too.
_SHARED = ("bos_token_id", "eos_token_id", "quantization_config", "tie_word_embeddings")
# Qwen2-VL and the like keep the language model's keys beside those of vision.
_FLAT = {
    "Qwen2VLForConditionalGeneration": "Qwen2ForCausalLM",
    "Qwen2_5_VLForConditionalGeneration": "Qwen2ForCausalLM",
}
_FLAT_TYPES = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2"}
_OTHERS = ("vision_config", "audio_config")


def language_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own keys, `config` itself where it is nothing else."""
    key = next((name for name in _INNER if name in config), None)
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    flat = _FLAT.get(name) if isinstance(name, str) else None
    if key is None and flat is None:
        return config
    if key is None:
        outer = {
            k: v for k, v in config.items() if k not in _OTHERS and not k.startswith("vision_")
        }
        return _of_text(outer | {"architectures": [flat]})
    inner = config[key]
    if not isinstance(inner, dict):
        raise FormatError(f"config.json: '{key}' must be an object", code="json_type")
    beside = {name: config[name] for name in _SHARED if config.get(name) is not None}
    merged = inner | {name: v for name, v in beside.items() if inner.get(name) is None}
    model_type = merged.get("model_type")
    if isinstance(model_type, str) and model_type in _FLAT_TYPES:
        merged = {**merged, "architectures": None, "model_type": _FLAT_TYPES[model_type]}
    if flat is not None:
        merged["architectures"] = [flat]
    return _of_text(merged)


def _of_text(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary sections of time, height and width all count tokens in a text: one plain rotation."""
    result = dict(config)
    for key in ("rope_scaling", "rope_parameters"):
        value = result.get(key)
        if isinstance(value, dict) and "mrope_section" in value:
            plain = {k: v for k, v in value.items() if k != "mrope_section"}
            for kind in ("type", "rope_type"):
                if plain.get(kind) == "mrope":
                    plain[kind] = "default"
            result[key] = plain
    return result
