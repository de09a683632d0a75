"""What a GPU makes of a model of 8 billion weights (the shape of Llama 3.1 8B, random E4_16), for
`make gpu-bench`: needs numpy, and what that target has built, but not the package.

    python3 benchmarks/gpu.py BUILD_DIRECTORY [--backend cuda] [--write docs/BENCHMARKS.md]
        [--llama path/to/llama.cpp --gguf a-Q4_K_M.gguf]

Prints JSON: `copy_gb_per_s` of the GPU's memory; for 1, 8 and 32 texts at once, tokens/s of them
together; of one, the share of the copy bandwidth with which weights are read; prefill of 2,048
tokens in TFLOP/s; the host's memory. With a tree of llama.cpp its CUDA build is made and races on
the same GPU, turn by turn. --write puts a table into the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PREFILL, DECODE = 2048, 128
STREAMS = (1, 8, 32)
BEGIN, END = "<!-- gpu -->", "<!-- /gpu -->"
LLAMA_8B = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "d_ffn": 14336}
N_VOCAB = 128256
# Wanted of an H100 or H200: key, least, of what.
GOALS = (
    ("bandwidth_share", 0.60, "share of the copy bandwidth, one text"),
    ("decode_vs_llama", 1.2, "times llama.cpp, one text"),
    ("prefill_vs_llama", 1.0, "times llama.cpp, a prompt"),
    ("streams_gain", 20.0, "times one text, 32 at once"),
)
MOST_HOST_BYTES = 600 << 20


def without_the_package() -> None:
    """Makes modules of edgellm importable from here that need neither the native module nor what a
    wheel brings along."""
    for name, folder in (("edgellm", "edgellm"), ("edgellm.converters", "converters")):
        module = types.ModuleType(name)
        module.__path__ = [str(ROOT / folder)]
        module.__dict__["__version__"] = "bench"
        sys.modules[name] = module
    sys.path.insert(0, str(ROOT / "benchmarks"))


def write_model(path: Path) -> None:
    without_the_package()
    import random_edge
    from edgellm.converters.spec import LayerSpec, ModelSpec

    shape = {key: LLAMA_8B[key] for key in ("n_heads", "n_kv_heads", "d_ffn")}
    layers = tuple(LayerSpec(**shape, head_dim=128) for _ in range(LLAMA_8B["n_layers"]))
    spec = ModelSpec(
        arch="llama",
        n_vocab=N_VOCAB,
        d_model=LLAMA_8B["d_model"],
        n_ctx_train=8192,
        norm_eps=1e-5,
        tied_head=False,
        n_rope=128,
        rope_factor=1.0,
        bos_id=0,
        eos_ids=(1,),
        layers=layers,
    )
    partial = path.with_suffix(".partial")
    random_edge.write(spec, partial)
    partial.replace(path)


def answer(*command: object) -> dict[str, Any]:
    """The JSON that a program prints."""
    run = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout.decode().strip().splitlines()[-1])


def run_edge(build: Path, model: Path, backend: str, streams: int, prefill: int) -> dict[str, Any]:
    tool = build / "tools" / "edge_bench"
    options = ["-p", prefill, "-n", DECODE, "-r", 3, "-s", streams, "--backend", backend]
    return answer(tool, model, *options)


def flops_of_a_token() -> float:
    d, ffn = LLAMA_8B["d_model"], LLAMA_8B["d_ffn"]
    kv = 2 * LLAMA_8B["n_kv_heads"] * 128 * d
    return 2.0 * LLAMA_8B["n_layers"] * (2 * d * d + kv + 3 * d * ffn)


def build_llama(tree: Path) -> Path:
    """llama-bench of this tree, with CUDA."""
    out = tree / "build-cuda-bench"
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_CUDA=ON", "-DLLAMA_CURL=OFF", "-G", "Ninja"]
    subprocess.run(["cmake", "-S", tree, "-B", out, *options], check=True, stdout=sys.stderr)
    build = ["cmake", "--build", out, "--target", "llama-bench"]
    subprocess.run(build, check=True, stdout=sys.stderr)
    return out / "bin" / "llama-bench"


def run_llama(tool: Path, gguf: Path) -> dict[str, float]:
    options = ["-p", PREFILL, "-n", DECODE, "-r", 3, "-ngl", 99, "-fa", 1, "-o", "json"]
    command = [str(word) for word in (tool, "-m", gguf, *options)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    rows = json.loads(run.stdout)
    return {
        "prefill": next(row["avg_ts"] for row in rows if row["n_prompt"] > 0),
        "decode": next(row["avg_ts"] for row in rows if row["n_gen"] > 0),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    build: Path = arguments.build
    model = build / "random-8b.edge"
    if not model.exists():
        write_model(model)
    figures: dict[str, Any] = answer(build / "tests" / "copy_bandwidth")
    llama = build_llama(arguments.llama) if arguments.llama else None
    rounds: list[dict[str, float]] = []
    for _ in range(3):  # by turns, so that a slow spell hits both
        one = run_edge(build, model, arguments.backend, 1, PREFILL)
        row = {"prefill": one["prefill_tokens_per_s"], "decode": one["decode_tokens_per_s"]}
        if llama is not None:
            theirs = run_llama(llama, arguments.gguf)
            row |= {f"{name}_vs_llama": row[name] / theirs[name] for name in theirs}
        rounds.append(row)
    middle = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
    figures["file_bytes"], figures["peak_rss_bytes"] = one["file_bytes"], one["peak_rss_bytes"]
    figures |= {key: value for key, value in middle.items() if key.endswith("_vs_llama")}
    figures["streams"] = {"1": middle["decode"]}
    for streams in STREAMS[1:]:
        many = run_edge(build, model, arguments.backend, streams, 128)
        figures["streams"][str(streams)] = many["streams_tokens_per_s"]
    read = 1e-9 * one["file_bytes"] * middle["decode"]
    figures["bandwidth_share"] = read / figures["copy_gb_per_s"]
    figures["streams_gain"] = figures["streams"]["32"] / middle["decode"]
    figures["prefill_tokens_per_s"] = middle["prefill"]
    figures["prefill_tflops"] = 1e-12 * flops_of_a_token() * middle["prefill"]
    return figures


def line_of(*command: str) -> str:
    """What a program says, "" where it cannot."""
    if shutil.which(command[0]) is None:
        return ""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip()


def report(figures: dict[str, Any]) -> list[str]:
    """A table, and of every goal whether it was met."""
    gpu = line_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    commit = line_of("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    day = datetime.now(UTC).date().isoformat()
    lines = [f"{gpu or 'unknown GPU'}, {platform.machine()}, {day}, commit {commit or 'unknown'}."]
    lines += ["", "| figure | value |", "|---|---|"]
    lines += [f"| {n} texts, tokens/s | {v:.1f} |" for n, v in figures["streams"].items()]
    for key in ("copy_gb_per_s", "prefill_tokens_per_s", "prefill_tflops"):
        lines.append(f"| {key} | {figures[key]:.1f} |")
    for key, least, what in GOALS:
        value = figures.get(key)
        said = "not measured: no tree of llama.cpp" if value is None else f"{value:.2f}"
        met = "" if value is None else (", met" if value >= least else ", NOT met")
        lines.append(f"| {what} (goal {least:g}) | {said}{met} |")
    host = figures["peak_rss_bytes"]
    met = "met" if host <= MOST_HOST_BYTES else "NOT met"
    lines.append(f"| host memory, MiB (goal at most 600) | {host / 2**20:.0f}, {met} |")
    return lines


def write_into(path: Path, lines: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text:
        text += f"\n## On a GPU\n\n`make gpu-bench`:\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("build", type=Path)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    if (arguments.llama is None) != (arguments.gguf is None):
        parser.error("--llama and --gguf go together: a tree, and a Q4_K_M of the same shape")
    figures = measure(arguments)
    print(json.dumps(figures, indent=2))
    lines = report(figures)
    print("\n".join(lines), file=sys.stderr)
    if arguments.write:
        write_into(arguments.write, lines)


if __name__ == "__main__":
    main()
