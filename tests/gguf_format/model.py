"""One small GGUF model with matrices of several types, made of bytes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from edgellm.converters.gguf.types import BY_NAME, NUMBERS

from gguf_format.raw import gguf_file, tensor

WIDTH, HEADS, VOCAB = 64, 4, 8
MATRICES = {
    "token_embd": ("Q8_0", VOCAB),
    "blk.0.attn_q": ("Q4_0", WIDTH),
    "blk.0.attn_k": ("F16", WIDTH // 2),
    "blk.0.attn_v": ("IQ4_NL", WIDTH // 2),
    "blk.0.attn_output": ("Q5_0", WIDTH),
    "blk.0.ffn_gate": ("MXFP4", 2 * WIDTH),
    "blk.0.ffn_up": ("BF16", 2 * WIDTH),
}
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 128,
    "llama.embedding_length": WIDTH,
    "llama.block_count": 1,
    "llama.feed_forward_length": 2 * WIDTH,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": [HEADS // 2],
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.factor": 4.0,
    "llama.rope.scaling.original_context_length": 32,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "<tool>"],
    "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 4],
    "tokenizer.ggml.scores": [float(-i) for i in range(8)],
    "tokenizer.chat_template": "{{ messages }}",
}


def model_bytes(
    metadata: Mapping[str, Any] = METADATA,
    without: Collection[str] = (),
    extra: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    factors: Sequence[float] = (1.0,) * 8,
) -> bytes:
    """A whole model, all of whose parts are used. extra: more tensors, of zeros, (type, dims)."""
    rng = np.random.default_rng(3)
    tensors, data = [], b""

    def add(name: str, dims: tuple[int, ...], kind: str, raw: bytes) -> None:
        nonlocal data
        tensors.append(tensor(name, dims, NUMBERS[kind], len(data)))
        data += raw + bytes(-len(raw) % 32)

    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        add(f"{name}.weight", (WIDTH,), "F32", np.ones(WIDTH, dtype="<f4").tobytes())
    down = {"blk.0.ffn_down": ("Q4_1", WIDTH)}
    for name, (kind, n_rows) in (MATRICES | down).items():
        n_cols = 2 * WIDTH if name.endswith("down") else WIDTH
        n_bytes = n_rows * n_cols // BY_NAME[kind].n_weights * BY_NAME[kind].n_bytes
        raw = rng.integers(0, 48, n_bytes, dtype=np.uint8).tobytes()
        add(f"{name}.weight", (n_cols, n_rows), kind, raw)
    add("rope_freqs.weight", (len(factors),), "F32", np.array(factors, dtype="<f4").tobytes())
    tensors = [item for item in tensors if not any(name.encode() in item for name in without)]
    for name, (kind, dims) in (extra or {}).items():
        add(name, dims, kind, bytes(math.prod(dims) * BY_NAME[kind].n_bytes))
    return gguf_file(metadata, tensors, data)
