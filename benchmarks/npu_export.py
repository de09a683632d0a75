"""Exports a model of the shape of Llama 3.2 1B with random weights for an NPU: peak memory, sizes
and operators of every graph.

    python benchmarks/npu_export.py npu:ort [--bits 4] [--max-mib 512] [--folder /tmp]

2.5 GB of disk for the checkpoint, which is made once, and about as much for the graphs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np
from edgellm.converters.npu import NpuOptions, export_npu

D, FFN, VOCAB, LAYERS, HEADS, KV_HEADS, HEAD = 2048, 8192, 128256, 16, 32, 8, 64
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": D,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCAB,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, D)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        found |= {
            prefix + "input_layernorm.weight": (D,),
            prefix + "self_attn.q_proj.weight": (HEADS * HEAD, D),
            prefix + "self_attn.k_proj.weight": (KV_HEADS * HEAD, D),
            prefix + "self_attn.v_proj.weight": (KV_HEADS * HEAD, D),
            prefix + "self_attn.o_proj.weight": (D, HEADS * HEAD),
            prefix + "post_attention_layernorm.weight": (D,),
            prefix + "mlp.gate_proj.weight": (FFN, D),
            prefix + "mlp.up_proj.weight": (FFN, D),
            prefix + "mlp.down_proj.weight": (D, FFN),
        }
    return found | {"model.norm.weight": (D,)}


def checkpoint(folder: Path) -> Path:
    """Written tensor by tensor; made once."""
    path = folder / "model.safetensors"
    if path.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    header, at = {}, 0
    for name, shape in shapes().items():
        n_bytes = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes().values():
            row = rng.standard_normal((1024, shape[-1]), dtype=np.float32) * shape[-1] ** -0.5
            block = (row if len(shape) == 2 else np.ones((1, shape[0]))).astype(np.float16)
            n_rows = shape[0] if len(shape) == 2 else 1
            for first in range(0, n_rows, len(block)):
                file.write(block[: n_rows - first].tobytes())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--bits", type=int)
    parser.add_argument("--max-mib", type=int)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 64])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    chosen = parser.parse_args()
    source = checkpoint(chosen.folder / "npu-export-1b")
    out = chosen.folder / "npu-export-1b.graphs"
    shutil.rmtree(out, ignore_errors=True)
    options = NpuOptions(
        rows=tuple(chosen.rows),
        context=chosen.context,
        bits=chosen.bits,
        max_bytes=chosen.max_mib << 20 if chosen.max_mib else None,
    )
    report = export_npu(source, out, chosen.target, options)
    for part in report.parts:
        n_mib = part.n_constant_bytes / 2**20
        print(f"{part.name}: {part.stages[0]} to {part.stages[-1]}, {n_mib:.0f} MiB of constants")
    print(f"operators: {report.parts[0].operators}")
    peak = f"{report.peak_rss_bytes / 2**30:.2f} GiB" if report.peak_rss_bytes else "unknown"
    print(f"{report.n_bytes / 2**30:.2f} GiB in {report.seconds:.0f} s, peak RSS {peak}")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
