"""Makes, for each of llama.cpp's files, ours of the same bytes: table (b) of docs/COMPRESSION.md.

    python benchmarks/equal_bytes.py --data shared/data --out files a.Q4_K_M.gguf b.IQ4_XS.gguf ...
    python benchmarks/quant_table.py --data shared/data --gguf Q4_K_M=a.Q4_K_M.gguf \
        --edge "ours=files/gptaq-a.Q4_K_M.edge" ...

Per peer two files: `gptq-NAME.edge`, as `edgellm convert --target-bpw` chooses formats within the
peer's bits per weight, and `gptaq-NAME.edge`, the same formats with codes searched by GPTAQ and the
tied embedding calibrated. Calibration and held-out windows are of the corpus' train split; neither
is in what quant_table.py measures on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from edgellm.converters import (
    AllocateOptions,
    CalibrationTokens,
    Limit,
    Recipe,
    convert,
    convert_within,
)
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import EMBED_ROLE, Rule
from edgellm.converters.reference import Reference
from quant_table import TRAIN_STRIDE, WINDOW_TOKENS, corpus_text, gguf_row, stored_bytes, windows

N_CALIBRATION, N_HELD_OUT = 64, 8  # windows
N_PASSES = 300
# A head that is the embedding, too, takes much damping: its rows are inputs as well.
TIED_HEAD = Method("gptq", damping=1.0, n_passes=0)


def searched_harder(recipe: Recipe) -> Recipe:
    """The formats of `recipe`, the codes by GPTAQ and of the embedding by TIED_HEAD."""

    def rule(old: Rule) -> Rule:
        if old.act is None or old.format == "F16":
            return old
        if old.pattern == EMBED_ROLE:
            return replace(old, method=TIED_HEAD)
        return replace(old, method=Method("gptaq")) if old.method.name == "gptq" else old

    return Recipe("equal bytes", tuple(rule(old) for old in recipe.rules), recipe.calibration)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("gguf", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="folder with models/ and corpus/")
    parser.add_argument("--model", default="seed6m")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)

    checkpoint = args.data / "models" / args.model
    n_tokens = (N_CALIBRATION + N_HELD_OUT) * WINDOW_TOKENS
    taken = windows(corpus_text(args.data, "train", TRAIN_STRIDE), checkpoint, n_tokens)
    tokens, held_out = CalibrationTokens(taken[:N_CALIBRATION]), taken[N_CALIBRATION:]
    reference = Reference.from_checkpoint(checkpoint)
    n_weights = sum(w.numel() for n, w in reference.weights.items() if n != "rope_inv_freq")
    options = AllocateOptions(method=Method("gptq"), max_passes=N_PASSES, cache_dir=args.out)
    n_threads = torch.get_num_threads()
    for gguf in args.gguf:
        peer_bpw = 8 * gguf_row(gguf, reference).n_bytes / n_weights
        ours, harder = (args.out / f"{by}-{gguf.stem}.edge" for by in ("gptq", "gptaq"))
        chosen = convert_within(
            checkpoint,
            ours,
            limit=Limit(target_bpw=peer_bpw),
            calibration=tokens,
            held_out=held_out,
            options=options,
            n_threads=n_threads,
        )
        recipe = searched_harder(chosen.recipe)
        convert(checkpoint, harder, recipe=recipe, calibration=tokens, n_threads=n_threads)
        bpw = [8 * stored_bytes(path) / n_weights for path in (ours, harder)]
        print(f"{gguf.stem}: {peer_bpw:.3f} bits a weight; ours {bpw[0]:.3f} and {bpw[1]:.3f}")


if __name__ == "__main__":
    main()
