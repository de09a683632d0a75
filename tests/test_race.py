"""The race against llama.cpp: the demo model and a stand-in that answers as llama-bench does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "vs_llamacpp.py"
STAND_IN = """#!{python}
import json, sys
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
tests = [{{"n_gen": 0, "avg_ts": 50.0}}] if int(args["-p"]) else []
tests.append({{"n_gen": int(args["-n"]), "avg_ts": 4.0 if "-d" in args else 8.0}})
print(json.dumps(tests))
"""


@pytest.fixture
def llama_bench(tmp_path: Path) -> Path:
    program = tmp_path / "llama-bench"
    program.write_text(STAND_IN.format(python=sys.executable), "utf-8")
    program.chmod(0o755)
    return program


def race(llama_bench: Path, demo_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    gguf = llama_bench.with_name("peer.gguf")
    gguf.write_bytes(bytes(2_000_000))
    command = [sys.executable, str(SCRIPT), "--edge", str(demo_path), "--gguf", str(gguf)]
    command += ["--llama-bench", str(llama_bench), "--rounds", "1", "--decode", "4", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_table_lands_in_its_section_and_nowhere_else(llama_bench, demo_path, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- race: one -->\nold\n<!-- /race: one -->\nafter\n", "utf-8")
    done = race(llama_bench, demo_path, "--prefill", "16", "--write", str(page), "--section", "one")
    assert done.returncode == 0, done.stderr
    text = page.read_text("utf-8")
    assert text.startswith("before\n<!-- race: one -->\n| file |")
    assert text.endswith("\n<!-- /race: one -->\nafter\n")
    assert "old" not in text
    assert "| peer.gguf | 2 | 8.0 (8.0 to 8.0) | 50.0 (50.0 to 50.0) |" in text
    result = json.loads(done.stdout)
    for kind, peer_speed in (("decode", 8.0), ("prefill", 50.0)):
        ours = result[kind]["medians"][demo_path.name]
        assert result[kind]["best_peer"] == "peer.gguf"
        ratio = result[kind]["ratio_to_best_peer"][demo_path.name]
        assert ratio == pytest.approx(ours / peer_speed)
        assert f"| {ratio:.2f}x |" in text


def test_depth_reaches_both_programs(llama_bench, demo_path):
    done = race(llama_bench, demo_path, "--depth", "32", "--busy", "1")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["decode"]["medians"]["peer.gguf"] == 4.0
    assert result["decode"]["medians"][demo_path.name] > 0
    assert (result["depth_tokens"], result["busy_processes"]) == (32, 1)


def test_a_page_without_the_section_is_refused_before_anything_runs(
    llama_bench, demo_path, tmp_path
):
    page = tmp_path / "page.md"
    page.write_text("no marks\n", "utf-8")
    done = race(llama_bench, demo_path, "--write", str(page), "--section", "one")
    assert done.returncode != 0
    assert "no section 'one'" in done.stderr
    assert "round" not in done.stderr
    assert page.read_text("utf-8") == "no marks\n"
