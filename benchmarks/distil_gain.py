"""What a teacher is worth: half a model, healed with and without the other half's knowledge.

    python benchmarks/distil_gain.py --data shared/data --work DIR [--model seed6m] [--tokens N]

The student is half of the model: every other layer, and in those the two thirds of the
feed-forward channels with the largest weights. Both arms begin with it, learn from the same tokens
in the same order, and try the same five rates; `text` learns from the next token alone, `teacher`
from the whole model's distribution (forward KL over the whole vocabulary). An arm's rate is the one
with the least mean loss on `select.jsonl`; perplexity is that of `judge.jsonl`. Both are of the
corpus' valid split: other books and repositories than the train split. The seed decides which
documents are learnt from and in which order.

DIR keeps every run: called again, it goes on. The interval is Student's t over seeds, of paired
differences of mean log perplexity.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgellm.converters.distill import TrainProgress, TrainRecipe, train
from edgellm.converters.distill.recipe import (
    BatchOptions,
    DataOptions,
    LossOptions,
    OptimizerOptions,
    ScheduleOptions,
)
from edgellm.converters.reference import Reference
from quant_table import Tokens, corpus_text, windows
from safetensors.torch import load_file, save_file

ARMS = {
    "text": LossOptions(next_token=1.0),
    "teacher": LossOptions(next_token=0.0, teacher=1.0, divergence="forward_kl"),
}
RATES = (1.75e-4, 3.5e-4, 7e-4, 1.5e-3, 3e-3)
SEEDS = (0, 1, 2)
T_95 = 4.303  # Student's t of two degrees of freedom, two-sided
LAYER_STRIDE, FFN_SHARE = 2, 2 / 3
WINDOW_TOKENS, BATCH_WINDOWS = 256, 2
TRAIN_STRIDE, SELECT_TOKENS, JUDGE_TOKENS = 60, 8_192, 16_384
RUN_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Run:
    arm: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.rate:g}-{self.seed}"


def write_half(source: Path, out: Path) -> None:
    """Every LAYER_STRIDE-th layer of a Llama directory, with FFN_SHARE of its channels."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = load_file(source / "model.safetensors")
    kept = range(0, config["num_hidden_layers"], LAYER_STRIDE)
    n_ffn = round(config["intermediate_size"] * FFN_SHARE)
    half = {name: w for name, w in weights.items() if not name.startswith("model.layers.")}
    for place, layer in enumerate(kept):
        half |= _narrowed(weights, f"model.layers.{layer}.", f"model.layers.{place}.", n_ffn)
    out.mkdir(parents=True)
    for name in RUN_FILES:
        if (source / name).exists():
            (out / name).write_bytes((source / name).read_bytes())
    config |= {"num_hidden_layers": len(kept), "intermediate_size": n_ffn}
    (out / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    save_file({name: w.float().contiguous() for name, w in half.items()}, out / "model.safetensors")


def _narrowed(weights: Weights, old: str, new: str, n_ffn: int) -> Weights:
    layer = {name[len(old) :]: w.float() for name, w in weights.items() if name.startswith(old)}
    gate, up, down = (f"mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
    size = layer[gate].norm(dim=1) * layer[up].norm(dim=1) * layer[down].norm(dim=0)
    kept = size.argsort(descending=True)[:n_ffn].sort().values
    layer |= {gate: layer[gate][kept], up: layer[up][kept], down: layer[down][:, kept]}
    return {new + name: w for name, w in layer.items()}


def write_texts(data: Path, folder: Path) -> None:
    """train.jsonl, select.jsonl and judge.jsonl: documents of the corpus."""
    valid = list(corpus_text(data, "valid", 1))
    texts = {"train": corpus_text(data, "train", TRAIN_STRIDE)}
    texts |= {"select": iter(valid[0::2]), "judge": iter(valid[1::2])}
    for name, lines in texts.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in lines)


def recipe_of(run: Run, source: Path, folder: Path, n_tokens: int, n_threads: int) -> TrainRecipe:
    steps = n_tokens // (WINDOW_TOKENS * BATCH_WINDOWS)
    loss = ARMS[run.arm]
    return TrainRecipe(
        student=folder / "half",
        out=folder / run.name,
        data=DataOptions(
            (folder / "train.jsonl",), window_tokens=WINDOW_TOKENS, max_tokens=n_tokens
        ),
        schedule=ScheduleOptions(steps=steps, warmup=steps // 10),
        loss=loss,
        teacher=source if loss.needs_teacher else None,
        optimizer=OptimizerOptions(rate=run.rate),
        batch=BatchOptions(windows=BATCH_WINDOWS, threads=n_threads, seed=run.seed, save_every=8),
    )


def done(run: Run, recipe: TrainRecipe, held_out: Mapping[str, Tokens]) -> dict[str, Any]:
    """What a run gave, of which its file is the memory."""
    path = recipe.out.with_suffix(recipe.out.suffix + ".json")
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def show(at: TrainProgress) -> None:
        if at.n_done % 8 == 0 and at.loss is not None:
            print(f"{run.name}: {at.n_done} of {at.n_total}", file=sys.stderr, flush=True)

    cpu = _cpu_seconds()
    if recipe.out.exists():
        raise SystemExit(f"{recipe.out} has no figures; remove it, and it is made again")
    report = train(recipe, progress=show)
    losses = {f"{name}_loss": judged(recipe.out, tokens) for name, tokens in held_out.items()}
    found = {
        **losses,
        "n_tokens": report.n_tokens,
        "cpu_s": _cpu_seconds() - cpu,
    }
    path.write_text(json.dumps(found), encoding="utf-8")
    return found


def held_out_windows(path: Path, source: Path, n_tokens: int) -> Tokens:
    lines = path.read_text(encoding="utf-8").splitlines()
    tokens = windows((json.loads(line)["text"] for line in lines), source, n_tokens)
    return tokens.reshape(-1, WINDOW_TOKENS)


def judged(model: Path, held_out: Tokens) -> float:
    """Mean next-token loss over windows, nats."""
    reference = Reference.from_checkpoint(model)
    losses = []
    for window in held_out.tolist():
        log_q = reference.logits(window)[:-1].log_softmax(-1)
        targets = torch.tensor(window[1:])[:, None]
        losses.append(float(-log_q.gather(1, targets).double().mean()))
    return float(np.mean(losses))


def _cpu_seconds() -> float:
    return time.process_time()


def best_rate(found: Mapping[Run, Mapping[str, Any]], arm: str) -> float:
    def loss(rate: float) -> float:
        return float(np.mean([found[Run(arm, rate, seed)]["select_loss"] for seed in SEEDS]))

    return min(RATES, key=loss)


def summary(found: Mapping[Run, Mapping[str, Any]]) -> dict[str, Any]:
    """change: of mean log perplexity by the teacher, with its interval, as ratios of perplexity."""
    rates = {arm: best_rate(found, arm) for arm in ARMS}
    losses = {
        arm: np.array([found[Run(arm, rate, seed)]["judge_loss"] for seed in SEEDS])
        for arm, rate in rates.items()
    }
    difference = losses["teacher"] - losses["text"]
    half_width = T_95 * difference.std(ddof=1) / math.sqrt(len(SEEDS))
    ends = (difference.mean() - half_width, difference.mean() + half_width)
    return {
        "rates": rates,
        "perplexity": {arm: np.exp(values).tolist() for arm, values in losses.items()},
        "ratio": math.exp(difference.mean()),
        "ratio_95": [math.exp(end) for end in ends],
        "cpu_minutes": sum(item["cpu_s"] for item in found.values()) / 60,
    }


def print_table(found: Mapping[Run, Mapping[str, Any]]) -> None:
    print(f"| {'arm':<8} | rate | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean |")
    print("|---|---|" + "---|" * (len(SEEDS) + 1))
    for arm, rate in itertools.product(ARMS, RATES):
        losses = [found[Run(arm, rate, seed)]["judge_loss"] for seed in SEEDS]
        cells = [f"{math.exp(loss):.2f}" for loss in (*losses, float(np.mean(losses)))]
        print(f"| {arm:<8} | {rate:g} | " + " | ".join(cells) + " |")


def runs(seeds: Sequence[int]) -> Iterator[Run]:
    for seed, rate, arm in itertools.product(seeds, RATES, ARMS):
        yield Run(arm, rate, seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="models/ and corpus/")
    parser.add_argument("--model", default="seed6m", help="a Llama directory of models/")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=16_384, help="that a run learns from")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    source, folder = args.data / "models" / args.model, args.work
    if not (folder / "half").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_texts(args.data, folder)
        write_half(source, folder / "half")
    held_out = {
        name: held_out_windows(folder / f"{name}.jsonl", source, n_tokens)
        for name, n_tokens in (("select", SELECT_TOKENS), ("judge", JUDGE_TOKENS))
    }
    torch.set_num_threads(args.threads)
    found = {}
    for run in runs(SEEDS):
        recipe = recipe_of(run, source, folder, args.tokens, args.threads)
        found[run] = done(run, recipe, held_out)
    print_table(found)
    result = summary(found)
    print(json.dumps(result, indent=1))
    (folder / "summary.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
