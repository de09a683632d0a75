"""Dequantized weights of a GGUF file of a Llama, under the names and in the order of this project.

Undoes what make_gguf.py did to names and rotary order. Needs the packages gguf and torch.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch

NAMES = {
    "attn_q": "attn_q",
    "attn_k": "attn_k",
    "attn_v": "attn_v",
    "attn_output": "attn_o",
    "ffn_gate": "ffn_gate",
    "ffn_up": "ffn_up",
    "ffn_down": "ffn_down",
    "attn_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
}


def edge_name(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    return parts[0] if len(parts) == 1 else f"layers.{parts[1]}.{NAMES[parts[2]]}"


def in_halves(weights: npt.NDArray[np.float32], n_heads: int) -> npt.NDArray[np.float32]:
    """Rows of a head from neighbours to halves."""
    n_rows, n_cols = weights.shape
    pairs = weights.reshape(n_heads, n_rows // n_heads // 2, 2, n_cols)
    return pairs.swapaxes(1, 2).reshape(n_rows, n_cols)


def read(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """All tensors as float32, and the bytes they take in the file."""
    reader = gguf.GGUFReader(path)
    heads = {
        "attn_q": int(reader.fields["llama.attention.head_count"].contents()),
        "attn_k": int(reader.fields["llama.attention.head_count_kv"].contents()),
    }
    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        name = edge_name(tensor.name)
        role = name.rsplit(".", 1)[-1]
        if role in heads:
            values = in_halves(values, heads[role])
        weights[name] = torch.from_numpy(np.ascontiguousarray(values))
    return weights, sum(int(tensor.n_bytes) for tensor in reader.tensors)
