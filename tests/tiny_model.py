"""A tiny random Llama checkpoint with a byte-level tokenizer, seeded by tensor name.

`python tests/tiny_model.py OUT.edge` converts it, for tools that need a small valid file.
Widths are odd on purpose: neither a multiple of 16 rows nor of 32 columns.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

N_LAYERS, D_MODEL, N_HEADS, N_KV_HEADS, HEAD_DIM, D_FFN, N_CTX = 2, 40, 4, 2, 16, 56, 128
BOS, EOS, FIRST_BYTE = 0, 1, 2
N_VOCAB = 258  # <s>, </s>, 256 bytes


def write_tiny_checkpoint(directory: Path) -> Path:
    """Write config.json, tokenizer.json and model.safetensors; returns the directory."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    save_file(_weights(), directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(_config()), encoding="utf-8")
    (directory / "tokenizer.json").write_text(json.dumps(_tokenizer()), encoding="utf-8")
    return directory


def make_tiny_edge(
    out: Path, format: str = "E4_16", *, rotate_keys: bool = False, balance_keys: bool = False
) -> Path:
    """The tiny checkpoint, converted; keys are balanced by what random tokens say."""
    from edgellm.converters import convert
    from edgellm.converters.recipe import preset

    recipe = replace(preset(format), rotate_keys=rotate_keys, balance_keys=balance_keys)
    text = np.random.default_rng(3).integers(FIRST_BYTE, N_VOCAB, (2, 48), dtype=np.int32)
    with tempfile.TemporaryDirectory() as scratch:
        source = write_tiny_checkpoint(Path(scratch) / "tiny")
        convert(source, out, recipe=recipe, held_out=text if balance_keys else None)
    return out


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": D_MODEL,
        "intermediate_size": D_FFN,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": N_VOCAB,
        "max_position_embeddings": N_CTX,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }


def _weights() -> dict[str, npt.NDArray[np.float32]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (N_VOCAB, D_MODEL),
        "model.norm.weight": (D_MODEL,),
    }
    for layer in range(N_LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (D_MODEL,),
            prefix + "self_attn.q_proj.weight": (N_HEADS * HEAD_DIM, D_MODEL),
            prefix + "self_attn.k_proj.weight": (N_KV_HEADS * HEAD_DIM, D_MODEL),
            prefix + "self_attn.v_proj.weight": (N_KV_HEADS * HEAD_DIM, D_MODEL),
            prefix + "self_attn.o_proj.weight": (D_MODEL, N_HEADS * HEAD_DIM),
            prefix + "post_attention_layernorm.weight": (D_MODEL,),
            prefix + "mlp.gate_proj.weight": (D_FFN, D_MODEL),
            prefix + "mlp.up_proj.weight": (D_FFN, D_MODEL),
            prefix + "mlp.down_proj.weight": (D_MODEL, D_FFN),
        }
    return {name: _random(name, shape) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    values = np.random.default_rng(seed).standard_normal(shape)
    if len(shape) == 1:
        return (1 + 0.1 * values).astype(np.float32)
    return (values * shape[1] ** -0.5).astype(np.float32)


def _byte_alphabet() -> list[str]:
    """The printable stand-ins of byte-level BPE, by byte value (GPT-2's table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


def _tokenizer() -> dict[str, object]:
    names = ["<s>", "</s>", *_byte_alphabet()]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": BOS, "content": "<s>", "special": True, **flags},
            {"id": EOS, "content": "</s>", "special": True, **flags},
        ],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "add_prefix_space": False},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": {**byte_level, "add_prefix_space": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": [],
        },
    }


if __name__ == "__main__":
    make_tiny_edge(Path(sys.argv[1]))
