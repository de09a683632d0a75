"""Fewer weights in 4 bits, or all of them in fewer bits? The frontier of docs/COMPRESSION.md.

    python benchmarks/prune_frontier.py --data shared/data --out frontier [--model seed6m] \
        [--share 0.1 0.2 0.3 0.45 0.6] [--seeds 0 1] [--steps 40] [--threads 1]
    python benchmarks/prune_frontier.py --data shared/data --out frontier --masks

For each share of FFN channels: the model is pruned, healed by forward KL to the original on
`steps` x 1,024 tokens, and converted in 4 bits (E4_32, gptq, calibrated). Against it stands the
whole model in as many bytes, with the formats that `--max-size` chooses, by the same method on the
same text. The seed is that of the healing's order of windows, and of which windows calibrate.

KL(original || row) in nats per token and the perplexity of the row, over windows of 512 tokens of
the corpus' valid split and of WikiText-2, which nothing else sees; weights as stored, in float32.
Goes on where it stopped: what is in --out is not made again. --masks: half of the weights set to
zero by magnitude and by Wanda, nothing healed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgellm.converters import (
    AllocateOptions,
    CalibrationTokens,
    Limit,
    Recipe,
    convert,
    convert_within,
)
from edgellm.converters.distill import TrainRecipe, train
from edgellm.converters.distill.recipe import (
    BatchOptions,
    DataOptions,
    LossOptions,
    OptimizerOptions,
    ScheduleOptions,
)
from edgellm.converters.prune import PredictOptions, PruneOptions, prune
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import matrix_rule, vector_rules
from edgellm.converters.reference import Reference
from equal_bytes import TIED_HEAD
from quant_table import (
    TRAIN_STRIDE,
    VALID_STRIDE,
    WINDOW_TOKENS,
    Tokens,
    corpus_text,
    stored_bytes,
    windows,
)

SHARES = (0.1, 0.2, 0.3, 0.45, 0.6)
N_PASSES = 24  # of the held-out windows, to choose formats by
N_CALIBRATION, N_HELD_OUT = 16, 2  # windows of 512 tokens
DOMAINS = ("corpus", "wikitext")
HEAL_OFFSET = 7  # of the documents of the train split every TRAIN_STRIDEth from here on
HEAL_WINDOW, HEAL_BATCH = 256, 4
GPTQ = Method("gptq", n_passes=1)


@dataclass(frozen=True)
class Setup:
    """What all rows share. valid: by domain, held-out windows."""

    checkpoint: Path
    out: Path
    heal_text: Path
    calibration: tuple[CalibrationTokens, ...]  # by seed
    held_out: Tokens
    valid: dict[str, Tokens]
    steps: int
    threads: int
    rate: float


def whole(path: Path, make: Callable[[], object]) -> Path:
    """`path`, made unless it is there."""
    if not path.exists():
        make()
    return path


def heal_text(data: Path, path: Path) -> None:
    import lzma

    with (
        lzma.open(data / "corpus" / "train.jsonl.xz", "rt", encoding="utf-8") as lines,
        path.with_suffix(".tmp").open("w", encoding="utf-8") as out,
    ):
        out.writelines(line for i, line in enumerate(lines) if i % TRAIN_STRIDE == HEAL_OFFSET)
    path.with_suffix(".tmp").rename(path)


def pruned_row(setup: Setup, share: float, seed: int) -> tuple[Path, Path]:
    """(pruned, healed and converted)"""
    name = f"ffn{share:g}"
    cut = setup.out / name
    options = PruneOptions(ffn=share, n_windows=N_CALIBRATION)
    predict = PredictOptions("E4_32", bandwidth_gb_per_s=1.0)
    text = setup.calibration[0]
    whole(
        cut,
        lambda: prune(setup.checkpoint, cut, options, texts=text, predict_options=predict),
    )
    healed = setup.out / f"{name}-seed{seed}"
    recipe = TrainRecipe(
        student=cut,
        teacher=setup.checkpoint,
        out=healed,
        data=DataOptions((setup.heal_text,), window_tokens=HEAL_WINDOW),
        loss=LossOptions(next_token=0.0, teacher=1.0, divergence="forward_kl"),
        optimizer=OptimizerOptions(rate=setup.rate, weight_decay=0.0),
        schedule=ScheduleOptions(steps=setup.steps, warmup=max(1, setup.steps // 20)),
        batch=BatchOptions(windows=HEAL_BATCH, threads=setup.threads, seed=seed, save_every=20),
    )
    whole(healed, lambda: train(recipe))
    file = setup.out / f"{healed.name}.edge"
    rules = (
        matrix_rule("token_embd", "E4_32", None, TIED_HEAD),
        matrix_rule("*", "E4_32", None, GPTQ),
    )
    four_bits = Recipe("4 bits", (*vector_rules(), *rules))
    calibration = setup.calibration[seed % len(setup.calibration)]
    whole(
        file,
        lambda: convert(
            healed, file, recipe=four_bits, calibration=calibration, n_threads=setup.threads
        ),
    )
    return cut, file


def plain_row(setup: Setup, n_bytes: int, name: str, seed: int) -> Path:
    """The whole model in at most n_bytes of tensors."""
    file = setup.out / f"plain-{name}-seed{seed}.edge"
    n_weights = sum(
        weights.numel()
        for key, weights in Reference.from_checkpoint(setup.checkpoint).weights.items()
        if key != "rope_inv_freq"
    )

    def make() -> None:
        convert_within(
            setup.checkpoint,
            file,
            limit=Limit(target_bpw=8 * n_bytes / n_weights),
            calibration=setup.calibration[seed % len(setup.calibration)],
            held_out=setup.held_out,
            options=AllocateOptions(
                method=GPTQ, max_passes=N_PASSES, cache_dir=setup.out / "cache"
            ),
            n_threads=setup.threads,
        )

    return whole(file, make)


def judged(setup: Setup, original: Reference, row: Reference) -> dict[str, float]:
    """KL and perplexity, means over the domains' windows."""
    found: dict[str, float] = {}
    with torch.inference_mode():
        for domain, tokens in setup.valid.items():
            sums = np.zeros(2)
            for window in tokens.tolist():
                wanted = torch.log_softmax(original.logits(window), dim=-1)
                got = torch.log_softmax(row.logits(window), dim=-1)
                sums[0] += float((wanted.exp() * (wanted - got)).sum(-1).double().mean())
                next_ids = torch.tensor(window[1:])[:, None]
                sums[1] -= float(got[:-1].gather(1, next_ids).double().mean())
            kl, loss = sums / len(tokens)
            found |= {f"kl_{domain}": kl, f"perplexity_{domain}": math.exp(loss)}
    found["kl"] = float(np.mean([v for k, v in found.items() if k.startswith("kl_")]))
    return found


class Table:
    """results.json: a figure is made once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if name not in self.rows:
            self.rows[name] = make()
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
            temporary.replace(self._path)
        row: dict[str, Any] = self.rows[name]
        print(name, json.dumps(row), flush=True)
        return row


def frontier(setup: Setup, shares: list[float], seeds: list[int]) -> None:
    table = Table(setup.out / "results.json")
    original = Reference.from_checkpoint(setup.checkpoint)
    table.row("original", lambda: judged(setup, original, original))
    for seed in seeds:
        for share in shares:
            frontier_point(setup, table, original, share, seed)
    print_table(table.rows, shares, seeds)


def frontier_point(
    setup: Setup, table: Table, original: Reference, share: float, seed: int
) -> None:
    cut, file = pruned_row(setup, share, seed)

    def of_checkpoint(path: Path) -> Callable[[], dict[str, Any]]:
        return lambda: judged(setup, original, Reference.from_checkpoint(path))

    def of_file(path: Path) -> dict[str, Any]:
        bytes_of = {"bytes": stored_bytes(path)}
        return bytes_of | judged(setup, original, Reference.from_edge(path))

    table.row(f"{share:g} pruned", of_checkpoint(cut))
    row = table.row(f"{share:g} seed {seed} healed, 4 bits", lambda: of_file(file))

    def plain() -> dict[str, Any]:
        try:
            return of_file(plain_row(setup, int(row["bytes"]), f"{share:g}", seed))
        except ValueError as error:  # no format is small enough
            return {"refused": str(error)}

    table.row(f"{share:g} seed {seed} plain", plain)


def print_table(rows: dict[str, Any], shares: list[float], seeds: list[int]) -> None:
    """As it stands in the documentation; seeds beside each other."""
    for share in shares:
        ours = [rows[f"{share:g} seed {seed} healed, 4 bits"] for seed in seeds]
        theirs = [rows[f"{share:g} seed {seed} plain"] for seed in seeds]
        cells = [
            f"{ours[0]['bytes']:,}",
            f"{100 * share:g} %",
            f"{rows[f'{share:g} pruned']['kl']:.4f}",
        ]
        cells += [_kls(ours), _perplexities(ours)]
        if any("refused" in one for one in theirs):
            cells += ["no formats are so small", "", ""]
        else:
            pairs = zip(ours, theirs, strict=True)
            ratios = ", ".join(f"{a['kl'] / b['kl']:.2f}" for a, b in pairs)
            cells += [_kls(theirs), _perplexities(theirs), ratios]
        print(f"| {' | '.join(cells)} |")


def _kls(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{row['kl']:.4f}" for row in rows)


def _perplexities(rows: list[dict[str, Any]]) -> str:
    means = [np.mean([row[f"perplexity_{domain}"] for domain in DOMAINS]) for row in rows]
    return ", ".join(f"{mean:.1f}" for mean in means)


def masks(setup: Setup) -> None:
    table = Table(setup.out / "masks.json")
    original = Reference.from_checkpoint(setup.checkpoint)
    table.row("original", lambda: judged(setup, original, original))
    for mask in ("magnitude", "wanda"):
        folder = setup.out / mask
        options = PruneOptions(mask=mask, mask_share=0.5, n_windows=N_CALIBRATION)

        def make(folder: Path = folder, options: PruneOptions = options) -> None:
            prune(setup.checkpoint, folder, options, texts=setup.calibration[0])

        whole(folder, make)
        table.row(
            mask, lambda folder=folder: judged(setup, original, Reference.from_checkpoint(folder))
        )


def prepared(args: argparse.Namespace) -> Setup:
    checkpoint = args.data / "models" / args.model
    args.out.mkdir(exist_ok=True)
    n = N_CALIBRATION * len(args.seeds) + N_HELD_OUT
    taken = windows(corpus_text(args.data, "train", TRAIN_STRIDE), checkpoint, n * WINDOW_TOKENS)
    wikitext = (args.data / "text" / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    return Setup(
        checkpoint=checkpoint,
        out=args.out,
        heal_text=whole(
            args.out / "heal.jsonl", lambda: heal_text(args.data, args.out / "heal.jsonl")
        ),
        calibration=tuple(
            CalibrationTokens(part) for part in np.split(taken[: n - N_HELD_OUT], len(args.seeds))
        ),
        held_out=taken[n - N_HELD_OUT :],
        valid={
            "corpus": windows(
                corpus_text(args.data, "valid", VALID_STRIDE), checkpoint, args.tokens
            ),
            "wikitext": windows(iter([wikitext]), checkpoint, args.tokens),
        },
        steps=args.steps,
        threads=args.threads,
        rate=args.rate,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="models/, corpus/ and text/")
    parser.add_argument("--out", type=Path, required=True, help="a folder for all that is made")
    parser.add_argument("--model", default="seed6m")
    parser.add_argument("--share", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=40, help="of healing, 1,024 tokens each")
    parser.add_argument("--rate", type=float, default=1e-4, help="of healing")
    parser.add_argument("--tokens", type=int, default=5_120, help="held-out, of each domain")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--masks", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    setup = prepared(args)
    if args.masks:
        masks(setup)
    else:
        frontier(setup, args.share, args.seeds)


if __name__ == "__main__":
    main()
