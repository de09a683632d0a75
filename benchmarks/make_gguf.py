"""Writes a GGUF of a Llama checkpoint: llama.cpp is raced and judged on the same weights.

Weights are F16, or F32 with --f32 (what quantizers should start from). The vocabulary comes along
if the directory has a byte-level BPE tokenizer.json. Needs the packages gguf and numpy. Then
quantize it with llama.cpp's own tool: `llama-quantize model.f16.gguf model.q4_k_m.gguf Q4_K_M`.

    python benchmarks/make_gguf.py CHECKPOINT OUT.gguf [--f32]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
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


# llama.cpp knows pre-tokenizers by name; the beginning of their pattern tells them apart.
PRE_TOKENIZERS = {r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|": "llama-bpe"}


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


def add_tokenizer(writer: gguf.GGUFWriter, directory: Path, config: dict[str, Any]) -> None:
    path = directory / "tokenizer.json"
    if not path.exists():
        writer.add_tokenizer_model("none")
        return
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    pattern = tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    names = [name for start, name in PRE_TOKENIZERS.items() if pattern.startswith(start)]
    if not names:
        raise SystemExit(f"error: {path}: no name is known for the pre-tokenizer {pattern}")
    ids = {**tokenizer["model"]["vocab"]}
    special = {item["content"]: item["id"] for item in tokenizer["added_tokens"]}
    ids.update(special)
    tokens = [""] * config["vocab_size"]
    kinds = [gguf.TokenType.UNUSED] * config["vocab_size"]
    for text, index in ids.items():
        tokens[index] = text
        kinds[index] = gguf.TokenType.CONTROL if text in special else gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(names[0])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


def in_pairs(weights: npt.NDArray[np.float32], n_heads: int) -> npt.NDArray[np.float32]:
    """Rows of a head from halves, as Hugging Face rotates them, to llama.cpp's neighbours."""
    n_rows, n_cols = weights.shape
    halves = weights.reshape(n_heads, 2, n_rows // n_heads // 2, n_cols)
    return halves.swapaxes(1, 2).reshape(n_rows, n_cols)


def make_gguf(directory: Path, out: Path, *, kind: type[np.floating[Any]]) -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    n_heads = {
        "self_attn.q_proj.weight": config["num_attention_heads"],
        "self_attn.k_proj.weight": config.get("num_key_value_heads", config["num_attention_heads"]),
    }
    writer = gguf.GGUFWriter(out, "llama", use_temp_file=True)
    add_metadata(writer, config)
    add_tokenizer(writer, directory, config)
    is_f32 = kind is np.float32
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if is_f32 else gguf.LlamaFileType.MOSTLY_F16)
    with Checkpoint(directory) as checkpoint:
        for name, info in checkpoint.tensors.items():
            n_rows = info.shape[0] if len(info.shape) == 2 else 1
            weights = checkpoint.read_rows(name, 0, n_rows).reshape(info.shape)
            heads = n_heads.get(name.split(".", 3)[-1])
            if heads is not None:
                weights = in_pairs(weights, heads)
            writer.add_tensor(
                gguf_name(name), weights.astype(np.float32 if weights.ndim == 1 else kind)
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--f32", action="store_true", help="matrices in F32 instead of F16")
    args = parser.parse_args()
    make_gguf(args.checkpoint, args.out, kind=np.float32 if args.f32 else np.float16)


if __name__ == "__main__":
    main()
