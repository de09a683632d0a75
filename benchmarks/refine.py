"""Refines .edge files towards their checkpoint: the rows DWQ and QAD of docs/COMPRESSION.md.

    python benchmarks/refine.py --data shared/data --out files E4_16.edge [--learn codes] ...
    python benchmarks/quant_table.py --data shared/data --edge "E4_16, DWQ=files/scales-E4_16.edge"

A file that is not there yet is made first: layers in E4_16 by gptaq, the embedding in --embedding
(F16: the bytes of table (a); E6_16, calibrated: fewer than Q4_K_M of table (b) has). Text is of the
corpus' train split: documents that no calibration of quant_table.py or equal_bytes.py takes. Says
how many tokens and minutes of one thread a file took. Called again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from pathlib import Path

from edgellm.converters import CalibrationTokens, convert
from edgellm.converters.distill import TrainRecipe, train
from edgellm.converters.distill.recipe import (
    BatchOptions,
    DataOptions,
    LossOptions,
    OptimizerOptions,
    ScheduleOptions,
)
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import EMBED_ROLE, Recipe, matrix_rule, vector_rules
from equal_bytes import N_CALIBRATION, TIED_HEAD
from quant_table import TRAIN_STRIDE, corpus_text, windows

WINDOW_TOKENS, BATCH_WINDOWS = 512, 8


def write_text(data: Path, path: Path, n_tokens: int) -> None:
    """Enough documents between those of calibration; a token is at least a byte."""
    n_bytes = 0
    with (
        lzma.open(data / "corpus" / "train.jsonl.xz", "rt", encoding="utf-8") as lines,
        path.open("w", encoding="utf-8") as out,
    ):
        for index, line in enumerate(lines):
            if index % TRAIN_STRIDE != TRAIN_STRIDE // 2:
                continue
            text = json.loads(line)["text"]
            out.write(json.dumps({"text": text}) + "\n")
            n_bytes += len(text)
            if n_bytes > 8 * n_tokens:
                return


def make(edge: Path, args: argparse.Namespace) -> None:
    """Calibrated on what quant_table.py calibrates on."""
    checkpoint = args.data / "models" / args.model
    tied_head = None if args.embedding == "F16" else TIED_HEAD
    embedding = matrix_rule(EMBED_ROLE, args.embedding, None, tied_head)
    layers = matrix_rule("layers.*", "E4_16", None, Method("gptaq"))
    text = corpus_text(args.data, "train", TRAIN_STRIDE)
    tokens = windows(text, checkpoint, N_CALIBRATION * WINDOW_TOKENS)
    convert(
        checkpoint,
        edge,
        recipe=Recipe("refined", (*vector_rules(), embedding, layers)),
        calibration=CalibrationTokens(tokens),
        n_threads=args.threads,
    )


def recipe_of(edge: Path, args: argparse.Namespace) -> TrainRecipe:
    steps = args.tokens // (WINDOW_TOKENS * BATCH_WINDOWS)
    return TrainRecipe(
        student=edge,
        teacher=args.data / "models" / args.model,
        out=args.out / f"{args.learn}-{edge.name}",
        learn=args.learn,
        firmness=args.firmness,
        data=DataOptions((args.out / "train.jsonl",), max_tokens=args.tokens),
        schedule=ScheduleOptions(steps=steps, warmup=steps // 20),
        loss=LossOptions(next_token=0, teacher=1, divergence="forward_kl"),
        optimizer=OptimizerOptions(rate=args.rate, scale_rate=args.scale_rate, clip=0),
        batch=BatchOptions(windows=BATCH_WINDOWS, threads=args.threads, save_every=4),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("edge", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="models/ and corpus/")
    parser.add_argument("--model", default="seed6m")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--embedding", choices=("F16", "E6_16"), default="E6_16")
    parser.add_argument("--learn", choices=("scales", "codes"), default="scales")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--rate", type=float, default=1e-3, help="of codes")
    parser.add_argument("--scale-rate", type=float, default=1e-3)
    parser.add_argument("--firmness", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    if not (args.out / "train.jsonl").exists():
        write_text(args.data, args.out / "train.jsonl", args.tokens)
    for edge in args.edge:
        if not edge.exists():
            make(edge, args)
        cpu = time.process_time()
        report = train(recipe_of(edge, args))
        minutes = (time.process_time() - cpu) / 60
        print(
            f"{report.out}: {report.n_tokens:,} tokens, {report.steps} steps now, "
            f"{minutes:.1f} minutes of a thread, loss {report.loss:.5f}"
        )


if __name__ == "__main__":
    main()
