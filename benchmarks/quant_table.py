"""The table of quantizers: KL against the original model at the bytes that each takes.

    python benchmarks/quant_table.py --data shared/data [--model seed6m] [--tokens 25600] \
        [--row "E4_16 gptq" ...] [--gguf "Q4_K imatrix=a.gguf" ...] [--edge "ours=a.edge" ...] \
        [--native] [--against "E4_16 rtn"] [--json table.json]

Weights only: every row is a set of dequantized weights, run in float32 by converters/reference.py;
--native adds to each --edge row one of what the native runtime gives, int8 activations included.
Body only: embedding and head are F16 in the rows by name; --edge and --gguf take whole files.
KL(original || row) in nats per token over windows of 512 tokens of two domains, the corpus' valid
split and WikiText-2, which no calibration sees; calibration text is of the corpus' train split.
bpw = 8 x the bytes of all tensors / parameters. Intervals: bootstrap over windows, paired where two
rows are compared.

A row is a function of `Setup` that gives a `Row`; ROWS has them by name. --gguf adds files that
llama.cpp quantized from what make_gguf.py wrote with --f32.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gguf_weights
import numpy as np
import numpy.typing as npt
import torch
from edgellm.converters import BUILTIN_TEXT, CalibrationTokens, Recipe, convert
from edgellm.converters.quant.methods import Method
from edgellm.converters.recipe import Rule, matrix_rule, vector_rules
from edgellm.converters.reference import Reference

from edgellm import load
from edgellm.edgefile import read_header

WINDOW_TOKENS = 512
N_RESAMPLES = 10_000
TRAIN_STRIDE = 40  # of the documents of the train split every so manyth is calibration text
VALID_STRIDE = 3

Floats = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]
Logits = Callable[[list[int]], torch.Tensor]


@dataclass(frozen=True)
class Setup:
    """What every row starts from. scratch: a folder for files."""

    checkpoint: Path
    calibration: CalibrationTokens
    scratch: Path


@dataclass(frozen=True)
class Row:
    """logits(ids) -> [n_tokens, n_vocab]; n_bytes: of all stored tensors."""

    logits: Logits
    n_bytes: int


@dataclass(frozen=True)
class Measure:
    """Per window, [n_windows]: mean KL in nats per token, share of equal most likely tokens."""

    kl: Floats
    top1: Floats


def edge_row(
    setup: Setup,
    format: str,
    method: Method,
    scale: str | None = None,
    *,
    builtin_text: bool = False,
) -> Row:
    """Converted by this project: the matrices of the layers in `format`, calibrated on the tokens
    of the setup or on the converter's own text."""
    rule = matrix_rule("layers.*", format, None, method, scale)
    return converted_row(setup, rule, builtin_text=builtin_text)


def embed_row(setup: Setup, format: str, method: Method) -> Row:
    """Only the embedding, which here is the head, in `format`; the layers are F16."""
    return converted_row(setup, matrix_rule("token_embd", format, None, method))


def converted_row(setup: Setup, rule: Rule, *, builtin_text: bool = False) -> Row:
    """`rule`, and F16 for every other matrix."""
    recipe = Recipe("table", (*vector_rules(), rule, matrix_rule("*", "F16", None)))
    out = setup.scratch / "row.edge"
    text = [BUILTIN_TEXT] if builtin_text else setup.calibration
    calibration = text if rule.method.needs_stats or rule.scale else ()
    convert(setup.checkpoint, out, recipe=recipe, calibration=calibration)
    return Row(Reference.from_edge(out).logits, stored_bytes(out))


def stored_bytes(path: Path) -> int:
    tensors = read_header(path).tensors.values()
    return sum(info.n_bytes for info in tensors if info.format != "U8")


def native_row(path: Path) -> Row:
    model = load(path)
    return Row(lambda ids: torch.from_numpy(model.logits(ids)), stored_bytes(path))


def gguf_row(path: Path, reference: Reference) -> Row:
    weights, n_bytes = gguf_weights.read(path)
    inv_freq = reference.weights["rope_inv_freq"]
    model = Reference(reference.spec, {**weights, "rope_inv_freq": inv_freq})
    return Row(model.logits, n_bytes + 4 * inv_freq.numel())


ROWS: dict[str, Callable[[Setup], Row]] = {
    f"{format} {method.name}": partial(edge_row, format=format, method=method)
    for format in ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32")
    for method in (Method("rtn"), Method("importance"), Method("gptq"), Method("gptaq"))
}
ROWS |= {
    f"E4_16 gptaq drift {drift}": partial(
        edge_row, format="E4_16", method=Method("gptaq", drift=drift)
    )
    for drift in (0.25, 0.5, 1.0)
}
ROWS |= {
    f"{format} {name} {scale}": partial(edge_row, format=format, method=Method(name), scale=scale)
    for format in ("E4_16", "E4_32")
    for name in ("rtn", "importance", "gptq", "gptaq")
    for scale in ("awq", "smooth")
}
ROWS |= {
    f"{format} autoround from {start}": partial(
        edge_row, format=format, method=Method("autoround", start=start)
    )
    for format in ("E4_16", "E4_32")
    for start in ("rtn", "gptaq")
}
ROWS |= {
    f"embed {format} {name}": partial(embed_row, format=format, method=Method(name))
    for format in ("E4_16", "E6_16")
    for name in ("rtn", "importance", "gptq")
}
ROWS |= {
    f"{format} gptq builtin": partial(
        edge_row, format=format, method=Method("gptq"), builtin_text=True
    )
    for format in ("E4_16", "E4_32")
}
DEFAULT_ROWS = tuple(
    f"{format} {name}"
    for format in ("E4_16", "E4_32")
    for name in ("rtn", "importance", "gptq", "gptaq")
)


def corpus_text(data: Path, split: str, stride: int) -> Iterator[str]:
    with lzma.open(data / "corpus" / f"{split}.jsonl.xz", "rt", encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            if index % stride == 0:
                yield json.loads(line)["text"]


def windows(texts: Iterator[str], checkpoint: Path, n_tokens: int) -> Tokens:
    """The first n_tokens, rounded down to whole windows: [n_windows, WINDOW_TOKENS]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids: list[int] = []
    n_wanted = n_tokens // WINDOW_TOKENS * WINDOW_TOKENS
    while len(ids) < n_wanted:
        text = next(texts, None)
        if text is None:
            raise SystemExit(f"only {len(ids)} tokens of {n_wanted}; lower --tokens")
        ids += tokenizer.encode(text).ids
    return np.array(ids[:n_wanted], dtype=np.int32).reshape(-1, WINDOW_TOKENS)


def measure(reference: Reference, rows: dict[str, Row], held_out: Tokens) -> dict[str, Measure]:
    kl: dict[str, list[float]] = {name: [] for name in rows}
    top1: dict[str, list[float]] = {name: [] for name in rows}
    with torch.inference_mode():
        for window in held_out.tolist():
            wanted = torch.log_softmax(reference.logits(window), dim=-1)
            for name, row in rows.items():
                got = torch.log_softmax(row.logits(window), dim=-1)
                kl[name].append(float((wanted.exp() * (wanted - got)).sum(-1).double().mean()))
                same = wanted.argmax(-1) == got.argmax(-1)
                top1[name].append(float(same.double().mean()))
    return {name: Measure(np.array(kl[name]), np.array(top1[name])) for name in rows}


def interval(samples: list[Floats], against: list[Floats] | None = None) -> tuple[float, float]:
    """95 % of the mean over domains of the mean over windows; a ratio of two of them where
    `against` is given, both on the same resampled windows."""
    rng = np.random.default_rng(0)
    top = np.zeros(N_RESAMPLES)
    bottom = np.zeros(N_RESAMPLES)
    for domain, values in enumerate(samples):
        chosen = rng.integers(0, len(values), (N_RESAMPLES, len(values)))
        top += values[chosen].mean(axis=1)
        bottom += 1.0 if against is None else against[domain][chosen].mean(axis=1)
    low, high = np.percentile(top / bottom if against else top / len(samples), [2.5, 97.5])
    return float(low), float(high)


def summary(found: dict[str, Measure], baseline: dict[str, Measure]) -> dict[str, Any]:
    kl = [item.kl for item in found.values()]
    other = [item.kl for item in baseline.values()]
    mean = float(np.mean([values.mean() for values in kl]))
    return {
        "kl": mean,
        "kl_95": interval(kl),
        **{f"kl_{name}": float(item.kl.mean()) for name, item in found.items()},
        "top1": float(np.mean([item.top1.mean() for item in found.values()])),
        "ratio": mean / float(np.mean([values.mean() for values in other])),
        "ratio_95": interval(kl, other),
    }


def print_table(table: dict[str, dict[str, Any]]) -> None:
    print(f"{'row':<18} {'bpw':>6} {'KL':>8} {'95 %':>17} {'top-1':>7} {'ratio':>6} {'95 %':>13}")
    for name, row in table.items():
        low, high = row["kl_95"]
        ratio_low, ratio_high = row["ratio_95"]
        print(
            f"{name:<18} {row['bpw']:>6.3f} {row['kl']:>8.5f}  {low:.5f}-{high:.5f}  "
            f"{row['top1']:>7.4f} {row['ratio']:>6.3f}   {ratio_low:.3f}-{ratio_high:.3f}"
        )


def named_path(text: str) -> tuple[str, Path]:
    name, _, path = text.rpartition("=")
    if not name or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=FILE with a file that exists")
    return name, Path(path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="models/, corpus/ and text/")
    parser.add_argument("--model", default="seed6m")
    parser.add_argument("--tokens", type=int, default=25_600, help="held-out, of each domain")
    parser.add_argument("--calibration-windows", type=int, default=64)
    parser.add_argument("--row", action="append", choices=ROWS, help="default: plain rows of E4")
    parser.add_argument("--gguf", action="append", default=[], help="NAME=FILE", type=named_path)
    parser.add_argument("--edge", action="append", default=[], help="NAME=FILE", type=named_path)
    parser.add_argument("--native", action="store_true", help="each --edge row natively, too")
    parser.add_argument("--against", default="E4_16 rtn", choices=ROWS)
    parser.add_argument("--json", type=Path, help="write the table here, too")
    return parser.parse_args()


def main() -> None:
    args = parse()
    checkpoint = args.data / "models" / args.model
    wiki = (args.data / "text" / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    held_out = {
        "corpus": windows(corpus_text(args.data, "valid", VALID_STRIDE), checkpoint, args.tokens),
        "wikitext": windows(iter([wiki]), checkpoint, args.tokens),
    }
    n_calibration = args.calibration_windows * WINDOW_TOKENS
    calibration = windows(corpus_text(args.data, "train", TRAIN_STRIDE), checkpoint, n_calibration)
    reference = Reference.from_checkpoint(checkpoint)
    named = [w for key, w in reference.weights.items() if key != "rope_inv_freq"]
    n_parameters = sum(w.numel() for w in named)
    rows: dict[str, Row] = {}
    for name in dict.fromkeys([args.against, *(args.row or DEFAULT_ROWS)]):
        print(f"making {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            rows[name] = ROWS[name](
                Setup(checkpoint, CalibrationTokens(calibration), Path(scratch))
            )
    rows |= {name: gguf_row(path, reference) for name, path in args.gguf}
    for name, path in args.edge:
        rows[name] = Row(Reference.from_edge(path).logits, stored_bytes(path))
        if args.native:
            rows[f"{name}, native"] = native_row(path)
    found = {domain: measure(reference, rows, tokens) for domain, tokens in held_out.items()}
    table = {
        name: {
            "bpw": 8 * row.n_bytes / n_parameters,
            **summary(
                {domain: measures[name] for domain, measures in found.items()},
                {domain: measures[args.against] for domain, measures in found.items()},
            ),
        }
        for name, row in rows.items()
    }
    print_table(table)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
