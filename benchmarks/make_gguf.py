"""Writes an F16 GGUF of a Llama checkpoint, so that llama.cpp can be raced on the same weights.

For timings only: the file has no vocabulary, and q/k rows stay in Hugging Face order, which changes
no shape and no byte count. Needs the packages gguf and numpy. Then quantize it with llama.cpp's own
tool: `llama-quantize model.f16.gguf model.q4_k_m.gguf Q4_K_M`.

    python benchmarks/make_gguf.py CHECKPOINT OUT.gguf
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from edgellm.converters.checkpoint import Checkpoint

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return "output.weight"
    _, _, index, rest = name.split(".", 3)
    return f"blk.{index}.{NAMES[rest.removesuffix('.weight')]}.weight"


def add_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    n_heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", n_heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // n_heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def make_gguf(directory: Path, out: Path) -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(out, "llama", use_temp_file=True)
    add_metadata(writer, config)
    with Checkpoint(directory) as checkpoint:
        for name, info in checkpoint.tensors.items():
            n_rows = info.shape[0] if len(info.shape) == 2 else 1
            weights = checkpoint.read_rows(name, 0, n_rows).reshape(info.shape)
            kind = np.float32 if weights.ndim == 1 else np.float16
            writer.add_tensor(gguf_name(name), weights.astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    make_gguf(args.checkpoint, args.out)


if __name__ == "__main__":
    main()
