"""PEFT adapters of the tiny models, written by hand, and the same change merged into a model of
transformers: the first link of the golden chain for adapters."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

# The linear modules of the layers, whatever the family.
_MODULES = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "gate_proj", "up_proj", "down_proj"),
    *("gate_up_proj", "c_attn", "c_proj", "c_fc", "query_key_value", "dense", "dense_h_to_4h"),
    *("dense_4h_to_h", "input_linear", "output_linear"),
)
RANK, ALPHA = 4, 8.0
# rank_pattern and alpha_pattern. With the scales of all being powers of two, and values of few
# bits, nothing is rounded on the way to F16.
OTHER = {"v_proj": (9, 4.5), "down_proj": (36, 18.0), "c_attn": (17, 34.0)}


def changed_modules(model: Any) -> dict[str, Any]:
    """The layers' linear modules of a model of transformers, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _MODULES and getattr(module, "weight", None) is not None
    }


def rank_and_alpha(module: str) -> tuple[int, float]:
    return OTHER.get(module.rpartition(".")[2], (RANK, ALPHA))


def adapter_matrices(module: str, n_in: int, n_out: int, seed: int = 0) -> tuple[Any, Any]:
    """A [rank, n_in] and B [n_out, rank], the same for a name and seed."""
    rng = np.random.default_rng([zlib.crc32(module.encode()), seed])
    rank, _ = rank_and_alpha(module)
    a = rng.integers(-60, 61, (rank, n_in)).astype(np.float32) / np.float32(256)
    b = rng.integers(-60, 61, (n_out, rank)).astype(np.float32) / np.float32(256)
    return a, b


def write_peft(
    directory: Path, modules: dict[str, tuple[int, int]], *, seed: int = 0, **config: Any
) -> Path:
    """An adapter of modules given by (outputs, inputs); config: more keys of its configuration."""
    from safetensors.numpy import save_file

    tensors = {}
    for name, (n_out, n_in) in modules.items():
        a, b = adapter_matrices(name, n_in, n_out, seed)
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    values: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny/base",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.05,
        "target_modules": "all-linear",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {key: rank for key, (rank, _) in OTHER.items()},
        "alpha_pattern": {key: alpha for key, (_, alpha) in OTHER.items()},
        "loftq_config": {},
        "layer_replication": None,
        "megatron_core": "megatron.core",
    }
    (directory / "adapter_config.json").write_text(json.dumps(values | config), encoding="utf-8")
    return directory


def write_peft_of(directory: Path, model: Any, *, seed: int = 0, **config: Any) -> Path:
    """An adapter of all linear modules of the layers of a model of transformers."""
    modules = changed_modules(model)
    sizes = {name: _sizes(module) for name, module in modules.items()}
    is_conv = _is_conv(next(iter(modules.values())))
    return write_peft(directory, sizes, seed=seed, fan_in_fan_out=is_conv, **config)


def merge(model: Any, *, seed: int = 0, rslora: bool = False) -> None:
    """W + alpha / rank * B A in float32, in place."""
    import torch

    with torch.no_grad():
        for name, module in changed_modules(model).items():
            n_out, n_in = _sizes(module)
            a, b = adapter_matrices(name, n_in, n_out, seed)
            rank, alpha = rank_and_alpha(name)
            delta = torch.from_numpy(b @ a) * (alpha / (math.sqrt(rank) if rslora else rank))
            module.weight += delta.T if _is_conv(module) else delta


def _is_conv(module: Any) -> bool:
    """GPT-2's Conv1D keeps its matrix as [inputs, outputs]."""
    return type(module).__name__ == "Conv1D"


def _sizes(module: Any) -> tuple[int, int]:
    """(outputs, inputs)."""
    n_out, n_in = module.weight.shape
    return (n_in, n_out) if _is_conv(module) else (n_out, n_in)
