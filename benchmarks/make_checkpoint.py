"""Writes a random-weight Hugging Face checkpoint in the exact shape of a config.json.

For timings: the text such a model produces means nothing. Same config and seed, same bytes.
Streams: memory stays at a few blocks however large the model is. Llama configs only.

    python benchmarks/make_checkpoint.py CONFIG.json OUT [--shards 2] [--tokenizer tokenizer.json]
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_WEIGHTS = 4 << 20
NORM_SPREAD = 0.05


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers stores a LlamaForCausalLM."""
    if config.get("architectures") != ["LlamaForCausalLM"]:
        raise SystemExit(f"error: only LlamaForCausalLM, not {config.get('architectures')}")
    d, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    n_heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or d // n_heads
    d_q, d_kv = n_heads * head_dim, config.get("num_key_value_heads", n_heads) * head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, d)}
    for index in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{index}."
        shapes[prefix + "input_layernorm.weight"] = (d,)
        shapes[prefix + "self_attn.q_proj.weight"] = (d_q, d)
        shapes[prefix + "self_attn.k_proj.weight"] = (d_kv, d)
        shapes[prefix + "self_attn.v_proj.weight"] = (d_kv, d)
        shapes[prefix + "self_attn.o_proj.weight"] = (d, d_q)
        shapes[prefix + "post_attention_layernorm.weight"] = (d,)
        shapes[prefix + "mlp.gate_proj.weight"] = (ffn, d)
        shapes[prefix + "mlp.up_proj.weight"] = (ffn, d)
        shapes[prefix + "mlp.down_proj.weight"] = (d, ffn)
    shapes["model.norm.weight"] = (d,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocab, d)
    return shapes


def tensor_blocks(
    name: str, shape: tuple[int, ...], n_layers: int, seed: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Values of one tensor in order. Norms lie around one; matrices have standard deviation
    1/sqrt(n_cols), those that write to the residual stream 1/sqrt(2 n_layers) of that, so that
    activations keep the size they have in trained models."""
    rng = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    n_left = math.prod(shape)
    while n_left > 0:
        n = min(BLOCK_WEIGHTS, n_left)
        noise = rng.standard_normal(n, dtype=np.float32)
        if len(shape) == 1:
            yield 1 + np.float32(NORM_SPREAD) * noise
        else:
            scale = shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                scale *= (2 * n_layers) ** -0.5
            yield noise * np.float32(scale)
        n_left -= n


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to nearest even; the values are finite."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]], n_layers: int, seed: int) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            for block in tensor_blocks(name, shape, n_layers, seed):
                file.write(to_bf16(block).data)
    return offset


def split_shapes(
    shapes: dict[str, tuple[int, ...]], n_shards: int
) -> list[dict[str, tuple[int, ...]]]:
    """Consecutive runs of tensors of about equal size."""
    total = sum(map(math.prod, shapes.values()))
    shards: list[dict[str, tuple[int, ...]]] = [{} for _ in range(n_shards)]
    n_before = 0
    for name, shape in shapes.items():
        shards[min(n_before * n_shards // total, n_shards - 1)][name] = shape
        n_before += math.prod(shape)
    return [shard for shard in shards if shard]


def make_checkpoint(
    config_path: Path, out: Path, *, n_shards: int = 1, seed: int = 0, tokenizer: Path | None = None
) -> int:
    """Returns the bytes of weights written."""
    config = json.loads(config_path.read_text(encoding="utf-8"))
    shapes = tensor_shapes(config)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    if tokenizer is not None:
        shutil.copyfile(tokenizer, out / "tokenizer.json")
    shards = split_shapes(shapes, n_shards)
    names = ["model.safetensors"]
    if n_shards > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    n_bytes, weight_map = 0, {}
    for file_name, shard in zip(names, shards, strict=True):
        n_bytes += write_shard(out / file_name, shard, config["num_hidden_layers"], seed)
        weight_map |= dict.fromkeys(shard, file_name)
    if n_shards > 1:
        index = {"metadata": {"total_size": n_bytes}, "weight_map": weight_map}
        (out / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return n_bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="config.json of the model to imitate")
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json to copy")
    args = parser.parse_args()
    if not 1 <= args.shards <= 1000:
        parser.error("--shards must be 1 to 1000")
    n_bytes = make_checkpoint(
        args.config, args.out, n_shards=args.shards, seed=args.seed, tokenizer=args.tokenizer
    )
    print(f"{args.out}: {n_bytes / 1e9:.2f} GB of random weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
