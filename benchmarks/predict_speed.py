"""Predicted against measured speeds on this machine, of models that it was not calibrated with.

    python benchmarks/predict_speed.py DIR [--threads 2] [--rounds 5] [--profile here.toml]

Random weights in the shapes of SmolLM2-135M and Llama-3.2-1B calibrate; those of SmolLM2-360M,
Qwen2.5-0.5B and Qwen2.5-1.5B are predicted. All are benched in turn in every round, medians count.
Exit code 1 where a decode speed is off by more than 15 %. For a machine on which nothing else runs;
files take 2.5 GB in DIR and stay there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgellm.converters.spec import LayerSpec, ModelSpec
from random_edge import write

from edgellm.cli import bench_profile
from edgellm.edgefile import read_header
from edgellm.machine_profile import profile_of
from edgellm.planner import plan_of
from edgellm.speed import decode_speed, prefill_speed
from edgellm.work import work_of

PREFILL, DECODE = 512, 64
MOST_OFF = 0.15
# name: vocabulary, width, layers, heads, kv heads, head_dim, FFN
CALIBRATE = {
    "SmolLM2-135M": (49152, 576, 30, 9, 3, 64, 1536),
    "Llama-3.2-1B": (128256, 2048, 16, 32, 8, 64, 8192),
}
PREDICT = {
    "SmolLM2-360M": (49152, 960, 32, 15, 5, 64, 2560),
    "Qwen2.5-0.5B": (151936, 896, 24, 14, 2, 64, 4864),
    "Qwen2.5-1.5B": (151936, 1536, 28, 12, 2, 128, 8960),
}


def model(name: str, shape: tuple[int, ...], directory: Path) -> Path:
    n_vocab, d_model, n_layers, n_heads, n_kv_heads, head_dim, d_ffn = shape
    layer = LayerSpec(n_heads, n_kv_heads, head_dim, d_ffn)
    path = directory / f"{name}.edge"
    if not path.exists():
        layers = (layer,) * n_layers
        spec = ModelSpec(
            "llama", n_vocab, d_model, 4096, 1e-5, True, head_dim, 1.0, 0, (1,), layers
        )
        write(spec, path)
    return path


def bench(path: Path, threads: int) -> dict[str, Any]:
    options = ("--threads", threads, "--prefill", PREFILL, "--decode", DECODE, "--rounds", 1)
    command = [sys.executable, "-m", "edgellm", "bench", str(path), *map(str, options), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    report: dict[str, Any] = json.loads(done.stdout)["data"]
    return report


def median_of(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The last one, with the medians of what is measured."""
    keys = (
        *("prefill_tokens_per_s", "decode_tokens_per_s"),
        *("read_bandwidth_gb_per_s", "int8_peak_gmac_per_s"),
    )
    return {**reports[-1], **{key: statistics.median(one[key] for one in reports) for key in keys}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="write the profile here, for plan --device")
    wish = parser.parse_args()
    shapes = {**CALIBRATE, **PREDICT}
    paths = {name: model(name, shape, wish.directory) for name, shape in shapes.items()}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in paths}
    for at in range(wish.rounds):
        for name, path in paths.items():
            print(f"round {at + 1} of {wish.rounds}: {name}", file=sys.stderr)
            rounds[name].append(bench(path, wish.threads))
    known = [median_of(rounds[name]) for name in CALIBRATE]
    # The machine is one: so are its reads and its peak, whichever model ran before them.
    for key in ("read_bandwidth_gb_per_s", "int8_peak_gmac_per_s"):
        value = statistics.median(one[key] for each in rounds.values() for one in each)
        for one in known:
            one[key] = value
    profile = profile_of(known, "here", "This machine", "here.json")
    if wish.profile is not None:
        others = wish.profile.with_suffix(".other.json")
        others.write_text(json.dumps({"data": known[1]}), encoding="utf-8")
        bench_profile.write(wish.profile, known[0], [others])
        others.unlink()
    print("| model | decode, predicted | measured | off | prefill, predicted | measured | off |")
    print("|---|---|---|---|---|---|---|")
    worst = 0.0
    for name in PREDICT:
        header, report = read_header(paths[name]), median_of(rounds[name])
        work, plan = work_of(header), plan_of(header, 0)
        decode = decode_speed(profile, "cpu", work, plan, DECODE // 2)
        prefill = prefill_speed(profile, "cpu", work, PREFILL)
        assert decode is not None
        assert prefill is not None
        cells = []
        for speed, key in ((decode, "decode_tokens_per_s"), (prefill, "prefill_tokens_per_s")):
            off = speed.tokens_per_s / report[key] - 1
            cells += [f"{speed.tokens_per_s:.1f}", f"{report[key]:.1f}", f"{off:+.1%}"]
        worst = max(worst, abs(decode.tokens_per_s / report["decode_tokens_per_s"] - 1))
        print(f"| {name} | {' | '.join(cells)} |")
    fitted = {name.rpartition(".")[2]: one.value for name, one in profile.figures().items()}
    print(f"\nCalibration: {fitted}; worst decode: {worst:.1%} (may be {MOST_OFF:.0%})")
    sys.exit(worst > MOST_OFF)


if __name__ == "__main__":
    main()
