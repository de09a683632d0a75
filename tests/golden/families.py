"""Tiny models of every family, made and run by transformers. Nothing is downloaded."""

from __future__ import annotations

import json
import tomllib
import zlib
from pathlib import Path
from typing import Any

import numpy as np

_ROWS = tomllib.loads((Path(__file__).parent / "families.toml").read_text(encoding="utf-8"))
FAMILIES: dict[str, dict[str, Any]] = {
    row["name"]: {**_ROWS["common"], **row} for row in _ROWS["family"]
}
# Keys of [common] by the names that GPT-2 has for them.
_GPT2_KEYS = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
}
_GPT2_LACKS = ("intermediate_size", "num_key_value_heads")


def family_ids(name: str) -> list[int]:
    """Token ids for a row: random, the same every time."""
    row = FAMILIES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return [int(i) for i in rng.integers(0, row["vocab_size"], row["n_tokens"])]


def family_model(name: str) -> Any:
    """The model in float32, seeded by the names of its tensors."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    row = {k: v for k, v in FAMILIES[name].items() if k not in ("name", "n_tokens", "model_type")}
    model_type = FAMILIES[name]["model_type"]
    if model_type == "gpt2":
        row = {_GPT2_KEYS.get(k, k): v for k, v in row.items() if k not in _GPT2_LACKS}
    config = CONFIG_MAPPING[model_type](**json.loads(json.dumps(row)))
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            value = _weights(key, tuple(parameter.shape), model_type)
            parameter.copy_(torch.from_numpy(value))
    return model.eval()


def save_family(name: str, directory: Path) -> tuple[Path, Any]:
    """(checkpoint directory as transformers writes it, its logits [n_tokens, n_vocab])."""
    import torch

    model = family_model(name)
    model.save_pretrained(directory)
    with torch.inference_mode():
        logits = model(torch.tensor([family_ids(name)]), use_cache=False).logits[0]
    return directory, logits.numpy()


def _weights(key: str, shape: tuple[int, ...], model_type: str) -> Any:
    """Norms lie around one (Gemma adds the one itself), biases are not zero, matrices keep the
    scale of what passes through them."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    noise = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        around = 0 if key.endswith("bias") or model_type.startswith("gemma") else 1
        return np.float32(around) + np.float32(0.2) * noise
    is_table = "embed" in key or "wte" in key or "wpe" in key
    fan_in = shape[-2] if model_type == "gpt2" and not is_table else shape[-1]
    return noise * np.float32(1.5 / fan_in**0.5)
