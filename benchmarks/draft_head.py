"""The demo's draft head: trained on the corpus, and what one costs on a 1B model.

    python benchmarks/draft_head.py --data shared/data --work DIR --out demo.edge [--steps N]

Prints the head's report: how often it is right by depth, on windows of the corpus that it has not
learnt from (`text`) and on the model's own text (`own`); and the same on the corpus' valid split,
books and repositories that the model has not learnt from either (`unseen`), with the share of the
model's likeliest tokens that can be drafted at all. About 12 minutes of one core for the defaults;
called again with the same DIR it goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgellm.converters.calibrate.convert import edge_blobs, text_reader
from edgellm.converters.distill.data import TextReader, pack
from edgellm.converters.draft_head import DraftHeadOptions, add_draft_head
from edgellm.converters.draft_head.file import read_head
from edgellm.converters.draft_head.samples import Samples
from edgellm.converters.draft_head.shape import fitted, head_bytes, step_bytes
from edgellm.converters.draft_head.train import HeadTrainer, target_of
from edgellm.converters.layout import tensor_slots
from edgellm.converters.recipe import default_recipe
from edgellm.converters.spec import LayerSpec, ModelSpec

from edgellm.edgefile import tensor_bytes, verify

OPTIONS = DraftHeadOptions(samples=512, text_windows=2048, dtype="bf16")
NOTE_EVERY_S = 30.0
LLAMA_1B = ModelSpec(
    arch="llama",
    n_vocab=128256,
    d_model=2048,
    n_ctx_train=131072,
    norm_eps=1e-5,
    tied_head=True,
    n_rope=64,
    rope_factor=1.0,
    bos_id=128000,
    eos_ids=(128009,),
    layers=(LayerSpec(n_heads=32, n_kv_heads=8, head_dim=64, d_ffn=8192),) * 16,
)


def on_1b() -> dict[str, float]:
    """Of the head that the options leave Llama-3.2-1B, in the formats that convert() chooses."""
    recipe = default_recipe(tied_head=True)
    tensors = {}
    for slot in tensor_slots(LLAMA_1B):
        format = recipe.choose(slot.role, slot.name).format
        rows, cols = (1, *slot.shape) if len(slot.shape) == 1 else slot.shape
        tensors[slot.name] = tensor_bytes(format, rows, cols)
    head = fitted(LLAMA_1B, tensors, OPTIONS)
    n_bytes, n_step = head_bytes(head, OPTIONS.format), step_bytes(LLAMA_1B, tensors)
    return {
        "vocab": head.n_vocab,
        "d_ffn": head.layers[0].d_ffn,
        "n_bytes": n_bytes,
        "step_bytes": n_step,
        "step_share": n_bytes / n_step,
    }


def unseen(edge: Path, work: Path, text: Path) -> dict[str, Any]:
    """Of the head that is stored in `edge`, on the first windows of a text."""
    header = verify(edge)
    spec, head = ModelSpec.from_json(header.metadata["edgellm.spec"]), read_head(header)
    reader = TextReader(*text_reader(edge, edge_blobs(edge)), spec.eos_ids[0])
    n_tokens = OPTIONS.valid_windows * OPTIONS.window_tokens
    tokens = pack([text], reader, OPTIONS.window_tokens, n_tokens, OPTIONS.seed).tokens
    windows = Samples(edge, work, tokens, OPTIONS, 0, 1).of_texts(len(tokens))
    target = target_of(header, spec)
    trainer = HeadTrainer(target, head.spec, head.ids, OPTIONS)
    depths = trainer.measure(windows, head.weights, head.acts)
    best = target.log_probs(torch.from_numpy(windows.hidden.astype(np.float32))).argmax(-1)
    return {
        "depths": [asdict(one) for one in depths],
        "can_be_drafted": float(np.isin(best.numpy(), head.ids).mean()),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("edgellm/demo/demo.edge"))
    parser.add_argument("--steps", type=int, default=OPTIONS.steps)
    parser.add_argument("--samples", type=int, default=OPTIONS.samples)
    parser.add_argument("--text-windows", type=int, default=OPTIONS.text_windows)
    parser.add_argument("--vocab", type=int, default=OPTIONS.vocab)
    parser.add_argument("--d-ffn", type=int, default=OPTIONS.d_ffn)
    parser.add_argument("--rate", type=float, default=OPTIONS.rate)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    started = last = time.monotonic()

    def note(stage: str, n_done: int, n_total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= NOTE_EVERY_S or n_done == n_total:
            last = time.monotonic()
            print(f"{last - started:6.0f} s  {stage} {n_done}/{n_total}", file=sys.stderr)

    options = replace(
        OPTIONS,
        steps=given.steps,
        samples=given.samples,
        text_windows=given.text_windows,
        vocab=given.vocab,
        d_ffn=given.d_ffn,
        rate=given.rate,
    )
    report = add_draft_head(
        given.model,
        given.out,
        options,
        texts=[given.data / "corpus" / "train.jsonl.xz"],
        work=given.work,
        n_threads=given.threads,
        progress=note,
    )
    torch.set_num_threads(given.threads)
    found = {"demo": report.to_dict(), "llama_1b": on_1b()}
    found["unseen"] = unseen(
        given.out, given.work / "unseen", given.data / "corpus" / "valid.jsonl.xz"
    )
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
