"""benchmarks/gpu.py, as far as it goes without a GPU: its model and its report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import edgellm

ROOT = Path(__file__).parent.parent
# A process of its own: the script stands in for the package, as on a machine without it.
CODE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import gpu
gpu.LLAMA_8B.update(d_model=256, n_layers=2, n_heads=2, n_kv_heads=1, d_ffn=512)
gpu.N_VOCAB = 1000
folder = Path(sys.argv[2])
gpu.write_model(folder / "model.edge")
assert "edgellm._native" not in sys.modules
figures = {
    "streams": {"1": 10.0, "8": 60.0, "32": 210.0}, "copy_gb_per_s": 3000.0,
    "prefill_tokens_per_s": 1e4, "prefill_tflops": 100.0, "bandwidth_share": 0.5,
    "streams_gain": 21.0, "peak_rss_bytes": 700 << 20,
}
for _ in range(2):
    gpu.write_into(folder / "page.md", gpu.report(figures))
"""


def test_the_model_loads_and_the_report_says_what_was_met(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    code = [sys.executable, "-P", "-c", CODE, str(ROOT / "benchmarks"), str(tmp_path)]
    run = subprocess.run(code, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    text = page.read_text()
    assert text.count("## On a GPU") == 1
    assert text.count("tokens/s") == 3
    assert "(goal 0.6) | 0.50, NOT met" in text
    assert "(goal 20) | 21.00, met" in text
    assert "(goal at most 600) | 700, NOT met" in text
    assert text.count("no tree of llama.cpp") == 2
    with edgellm.load(tmp_path / "model.edge", speculate=False) as model:
        assert len(model.generate([1, 2, 3], max_tokens=4, stop_ids=()).token_ids) == 4
