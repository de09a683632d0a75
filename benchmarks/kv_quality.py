"""What balanced and rotated keys and rotated values save of the KV cache's rounding: KL to F16 KV,
in nats.

    python benchmarks/kv_quality.py CHECKPOINT TEXT [--windows 3] [--window-tokens 512]
        [--outliers 8] [--format E4_16 [--act f32] [--native]] [--json]

Over full windows of TEXT, with the rounding of converters/kv_rounding.py in float32 (so nothing but
the KV cache is rounded): every KV format as it is, with keys rotated, balanced, and both, and with
values rotated; the mean and its standard error over tokens. Keys are balanced by what two more
windows say. --outliers: one pair of key channels of every kv head is made so many times as large,
and queries make up for it, which is the same model with keys that are hard to round. --format:
instead of the checkpoint's weights those of files in that format ("default": of no --format), one
for each column, and how far each is from the checkpoint with F16 KV. --native: of such files, the
runtime's own KL (activations are rounded to 8 bits there unless --act says otherwise, and every
change of the KV changes what they are rounded to).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgellm.converters import convert
from edgellm.converters.key_balance import balance_of
from edgellm.converters.kv_rounding import KV_FORMATS, KvRounding
from edgellm.converters.layout import KEY_BALANCE_ROLES
from edgellm.converters.recipe import Recipe, default_recipe, preset
from edgellm.converters.reference import Reference
from torch import Tensor

import edgellm

OUTLIER_SEED = 0
BALANCE_WINDOWS = 2
COLUMNS: dict[str, dict[str, bool]] = {
    "plain": {},
    "keys rotated": {"rotate_keys": True},
    "keys balanced": {"balance_keys": True},
    "both": {"rotate_keys": True, "balance_keys": True},
    "values rotated": {"rotate_values": True},
}
Windows = Sequence[list[int]]


def with_key_outliers(reference: Reference, factor: float) -> Reference:
    """Of every kv head one pair of channels that turn together, among the slower half."""
    rng, weights = np.random.default_rng(OUTLIER_SEED), dict(reference.weights)
    half = reference.spec.n_rope // 2
    for index, layer in enumerate(reference.spec.layers):
        scale = torch.ones(layer.n_kv_heads, layer.head_dim)
        for head in range(layer.n_kv_heads):
            pair = int(rng.integers(half // 2, half))
            scale[head, [pair, pair + half]] = factor
        group = layer.n_heads // layer.n_kv_heads
        for role, factors in (("attn_k", scale), ("attn_q", 1 / scale.repeat_interleave(group, 0))):
            for name in (f"layers.{index}.{role}", f"layers.{index}.{role}_bias"):
                if name in weights:
                    column = factors.reshape(-1, *[1] * (weights[name].dim() - 1))
                    weights[name] = weights[name] * column
    return Reference(reference.spec, weights, reference.n_ctx)


@torch.inference_mode()
def with_key_balance(reference: Reference, windows: Windows) -> Reference:
    """What a conversion with these windows as held-out text would balance keys with."""
    weights, states = dict(reference.weights), [reference.embed(ids) for ids in windows]
    for index in range(len(reference.spec.layers)):
        balance = balance_of([reference.key_sums(x, index) for x in states])
        for role, values in zip(KEY_BALANCE_ROLES, (balance.mean, balance.scale), strict=True):
            weights[f"layers.{index}.{role}"] = values.flatten()
        states = [reference.block(x, index) for x in states]
    return Reference(reference.spec, weights, reference.n_ctx)


@torch.inference_mode()
def log_probs(reference: Reference, windows: Windows, kv: KvRounding) -> list[Tensor]:
    found = []
    for ids in windows:
        x = reference.embed(ids)
        for index in range(len(reference.spec.layers)):
            x = reference.block(x, index, kv)
        found.append(reference.head(x).double().log_softmax(-1))
    return found


def divergence(base: Sequence[Tensor], other: Sequence[Tensor]) -> dict[str, float]:
    """Mean of KL(base || other) over tokens and its standard error."""
    kl = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in zip(base, other, strict=True)])
    return {"kl": float(kl.mean()), "error": float(kl.std() / len(kl) ** 0.5)}


def simulated_rows(reference: Reference, windows: Windows, base: Sequence[Tensor]) -> Any:
    """By format and column."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, plain in KV_FORMATS.items():
        if name == "F16":
            continue
        rows[name] = {}
        for column, changes in COLUMNS.items():
            kv = replace(plain, **changes)
            rows[name][column] = divergence(base, log_probs(reference, windows, kv))
    return rows


def recipe_of(format: str, act: str | None, tied_head: bool, changes: dict[str, bool]) -> Recipe:
    made = default_recipe if format == "default" else lambda **k: preset(format, **k)
    choices = {"rotate_keys": False, "balance_keys": False, **changes}
    return replace(made(tied_head=tied_head, act=act), **choices)


def native_log_probs(path: Path, windows: Windows, kv: str) -> list[Tensor]:
    with edgellm.load(path, kv=kv, verify="never") as model:
        return [torch.from_numpy(model.logits(ids)).double().log_softmax(-1) for ids in windows]


def file_rows(
    args: argparse.Namespace, windows: Windows, balance: Windows, original: Sequence[Tensor]
) -> dict[str, Any]:
    """ "weights", F16 KV to the checkpoint, and every KV format to the file's own F16 KV."""
    found: dict[str, Any] = {}
    native, held_out = args.native, np.array(balance, dtype=np.int32)
    tied = Reference.from_checkpoint(args.checkpoint).spec.tied_head
    with tempfile.TemporaryDirectory() as folder:
        for column, changes in COLUMNS.items():
            path = Path(folder) / f"{column}.edge"
            recipe = recipe_of(args.format, args.act, tied, changes)
            convert(args.checkpoint, path, recipe=recipe, held_out=held_out)
            reference = Reference.from_edge(path)
            base = log_probs(reference, windows, KV_FORMATS["F16"])
            rows = {"weights": divergence(original, base)}
            own = native_log_probs(path, windows, "F16") if native else []
            for name, kv in KV_FORMATS.items():
                if name == "F16":
                    continue
                rows[name] = divergence(base, log_probs(reference, windows, kv))
                if native:
                    other = native_log_probs(path, windows, name)
                    rows[f"{name}, runtime"] = divergence(own, other)
            found[column] = rows
    return {name: {c: found[c][name] for c in found} for name in found["plain"]}


def windows_of(source: Path, text: Path, n_windows: int, n_tokens: int) -> Windows:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    ids = tokenizer.encode(text.read_text(encoding="utf-8")[: 16 * n_windows * n_tokens]).ids
    if len(ids) < n_windows * n_tokens:
        raise SystemExit(f"{text}: {len(ids)} tokens, {n_windows * n_tokens} are needed")
    return [ids[i * n_tokens : (i + 1) * n_tokens] for i in range(n_windows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--window-tokens", type=int, help="default: the model's context")
    parser.add_argument("--outliers", type=float)
    parser.add_argument("--format")
    parser.add_argument("--act")
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    reference = Reference.from_checkpoint(args.checkpoint)
    n_tokens = args.window_tokens or reference.spec.n_ctx_train
    taken = windows_of(args.checkpoint, args.text, args.windows + BALANCE_WINDOWS, n_tokens)
    windows, balance = taken[: args.windows], taken[args.windows :]
    if args.outliers is not None:
        reference = with_key_outliers(reference, args.outliers)
    base = log_probs(reference, windows, KV_FORMATS["F16"])
    if args.format is None:
        rows = simulated_rows(with_key_balance(reference, balance), windows, base)
    else:
        rows = file_rows(args, windows, balance, base)
    if args.json:
        print(json.dumps({"n_windows": args.windows, "window_tokens": n_tokens, "rows": rows}))
        return
    columns = list(next(iter(rows.values())))
    print(f"| {args.windows} windows of {n_tokens} | " + " | ".join(columns) + " |")
    for name, row in rows.items():
        cells = (f"{row[c]['kl']:.5f} +- {row[c]['error']:.5f}" for c in columns)
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
