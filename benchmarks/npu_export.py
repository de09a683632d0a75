"""Exports a model with random weights of the shape of a config, Llama 3.2 1B by default, for an NPU
in a process of its own: its peak memory, and sizes and operators of every graph.

    python benchmarks/npu_export.py npu:ort [--config FILE] [--max-mib 512] [--folder /tmp]

2.5 GB of disk for the checkpoint, which is made once, and about as much for the graphs. Exits with
1 if the process took more than --limit-gib.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from edgellm.converters.npu import NpuOptions, export_npu

ROWS = 1024
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a Llama."""
    d, ffn, n_vocab = (config[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    width = config.get("head_dim", d // config["num_attention_heads"])
    q, kv = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (n_vocab, d)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        found |= {
            prefix + "input_layernorm.weight": (d,),
            prefix + "self_attn.q_proj.weight": (q, d),
            prefix + "self_attn.k_proj.weight": (kv, d),
            prefix + "self_attn.v_proj.weight": (kv, d),
            prefix + "self_attn.o_proj.weight": (d, q),
            prefix + "post_attention_layernorm.weight": (d,),
            prefix + "mlp.gate_proj.weight": (ffn, d),
            prefix + "mlp.up_proj.weight": (ffn, d),
            prefix + "mlp.down_proj.weight": (d, ffn),
        }
    if not config.get("tie_word_embeddings"):
        found["lm_head.weight"] = (n_vocab, d)
    return found | {"model.norm.weight": (d,)}


def checkpoint(folder: Path, config: dict[str, Any]) -> Path:
    """Written tensor by tensor; made once."""
    path, described = folder / "model.safetensors", folder / "config.json"
    if path.exists() and json.loads(described.read_text(encoding="utf-8")) == config:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    described.write_text(json.dumps(config), encoding="utf-8")
    header, at = {}, 0
    for name, shape in shapes(config).items():
        n_bytes = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes(config).values():
            if len(shape) == 1:
                file.write(np.ones(shape, dtype=np.float16).tobytes())
                continue
            for first in range(0, shape[0], ROWS):  # no two alike: compilers store equal ones once
                size = min(ROWS, shape[0] - first), shape[1]
                rows = rng.standard_normal(size, dtype=np.float32) * shape[1] ** -0.5
                file.write(rows.astype(np.float16).tobytes())
    return folder


def export(chosen: argparse.Namespace) -> None:
    out = chosen.folder / "npu-export.graphs"
    shutil.rmtree(out, ignore_errors=True)
    options = NpuOptions(
        rows=tuple(chosen.rows),
        context=chosen.context,
        bits=chosen.bits,
        max_bytes=chosen.max_mib << 20 if chosen.max_mib else None,
        head=chosen.head,
        embed=chosen.embed,
    )
    source = chosen.folder / "npu-export"
    report = export_npu(source, out, chosen.target, options, progress=show)
    kinds: dict[str, Counter[str]] = {"npu": Counter(), "host": Counter()}
    for part in report.parts:
        n_mib = part.n_constant_bytes / 2**20
        stages = f"{part.stages[0]} to {part.stages[-1]}"
        print(f"{part.name} ({part.placement}): {stages}, {n_mib:.0f} MiB of constants")
        kinds[part.placement].update(part.operators)
    for placement, counts in kinds.items():
        print(f"operators for the {placement}, all graphs: {sum(counts.values())} {dict(counts)}")
    for path in sorted(one for one in out.rglob("*") if one.stat().st_size > 1 << 20):
        print(f"{path.relative_to(out)}: {path.stat().st_size / 2**20:.0f} MiB")
    print(f"{report.n_bytes / 2**30:.2f} GiB in {report.seconds:.0f} s")
    shutil.rmtree(out)


def show(name: str, n_done: int, n_total: int) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}, {n_done} of {n_total} graphs written, peak RSS {peak:.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--bits", type=int)
    parser.add_argument("--max-mib", type=int)
    parser.add_argument("--embed")
    parser.add_argument("--head")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 64])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--limit-gib", type=float, default=6.0)
    parser.add_argument("--in-child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.in_child:
        export(chosen)
        return
    config = json.loads(chosen.config.read_text(encoding="utf-8")) if chosen.config else CONFIG
    checkpoint(chosen.folder / "npu-export", config)
    done = subprocess.run([sys.executable, *sys.argv, "--in-child"], check=False)
    # Largest of all processes that ended: of Linux in KiB.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"peak RSS of the process: {peak:.2f} GiB")
    if done.returncode or peak > chosen.limit_gib:
        raise SystemExit(f"failed ({done.returncode}), or above {chosen.limit_gib} GiB")


if __name__ == "__main__":
    main()
