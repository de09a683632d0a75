"""Tiny random checkpoints, seeded by tensor name, and the shared data folder.

A weight depends on its own name and shape only, so adding a layer changes no other tensor.
"""

from __future__ import annotations

import json
import os
import tomllib
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

REPO = Path(__file__).resolve().parents[2]
CASES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "cases.toml").read_text(encoding="utf-8")
)["case"]
CASE_NAMES = [case["name"] for case in CASES]
SHARED_MODELS = ("stories260K", "babyllama-tok105", "seed6m")
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def case_named(name: str) -> dict[str, Any]:
    return next(case for case in CASES if case["name"] == name)


def case_ids(case: dict[str, Any]) -> list[int]:
    """Token ids for a case: random, the same every time."""
    rng = np.random.default_rng(zlib.crc32(case["name"].encode()))
    return [int(i) for i in rng.integers(0, case["vocab_size"], case["n_tokens"])]


def hf_config(case: dict[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in case.items() if key not in ("name", "n_tokens")}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **config,
    }


def named_weights(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Matrices keep the scale of what passes through them; norm weights lie around one."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noise = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        return 1 + np.float32(0.1) * noise
    return noise * np.float32(1.5 / shape[1] ** 0.5)


def llama_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensor shapes as transformers names them."""
    d, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    d_q = config["num_attention_heads"] * config["head_dim"]
    d_kv = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, d)}
    for index in range(config["num_hidden_layers"]):
        p = f"model.layers.{index}."
        shapes |= {
            p + "input_layernorm.weight": (d,),
            p + "self_attn.q_proj.weight": (d_q, d),
            p + "self_attn.k_proj.weight": (d_kv, d),
            p + "self_attn.v_proj.weight": (d_kv, d),
            p + "self_attn.o_proj.weight": (d, d_q),
            p + "post_attention_layernorm.weight": (d,),
            p + "mlp.gate_proj.weight": (ffn, d),
            p + "mlp.up_proj.weight": (ffn, d),
            p + "mlp.down_proj.weight": (d, ffn),
        }
    shapes["model.norm.weight"] = (d,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, d)
    return shapes


def write_checkpoint(
    directory: Path,
    config: dict[str, Any],
    *,
    dtype: str = "F32",
    n_shards: int = 1,
    extra: dict[str, npt.NDArray[Any]] | None = None,
) -> Path:
    """A Hugging Face directory with random weights; more than one shard comes with an index."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, npt.NDArray[Any]] = {
        name: named_weights(name, shape).astype(DTYPES[dtype])
        for name, shape in llama_shapes(config).items()
    }
    tensors |= extra or {}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if n_shards == 1:
        save_file(tensors, directory / "model.safetensors")
        return directory
    weight_map: dict[str, str] = {}
    names = list(tensors)
    for shard in range(n_shards):
        file_name = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::n_shards]}
        save_file(part, directory / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return directory


def tiny_checkpoint(directory: Path, case: dict[str, Any], **options: Any) -> Path:
    return write_checkpoint(directory / case["name"], hf_config(case), **options)


def shared_data(*parts: str) -> Path:
    """A path in the shared data folder; skips the test, saying why, where there is none."""
    root = Path(os.environ.get("EDGELLM_SHARED_DATA", REPO.parent / "shared" / "data"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no shared data at {path} (set EDGELLM_SHARED_DATA)")
    return path


def shared_model(name: str) -> Path:
    return shared_data("models", name)
