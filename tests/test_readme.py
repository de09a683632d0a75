"""The Python blocks of README and docs run as they stand, on the demo model; commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.cli import VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLING = (ROOT / "docs" / "SAMPLING.md").read_text(encoding="utf-8")
EVALUATION = (ROOT / "docs" / "EVALUATION.md").read_text(encoding="utf-8")
EMBEDDINGS = (ROOT / "docs" / "EMBEDDINGS.md").read_text(encoding="utf-8")
STRUCTURED = (ROOT / "docs" / "STRUCTURED.md").read_text(encoding="utf-8")
ASYNC = (ROOT / "docs" / "ASYNC.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs" / "ERRORS.md").read_text(encoding="utf-8")
CONFIDENCE = (ROOT / "docs" / "CONFIDENCE.md").read_text(encoding="utf-8")
PLAN = (ROOT / "docs" / "PLAN.md").read_text(encoding="utf-8")
TOOLS = (ROOT / "docs" / "TOOLS.md").read_text(encoding="utf-8")
NPU = (ROOT / "docs" / "NPU.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(
    r"```python\n(.*?)```",
    README
    + SAMPLING
    + EVALUATION
    + EMBEDDINGS
    + STRUCTURED
    + CONFIDENCE
    + TOOLS
    + ASYNC
    + PLAN
    + NPU,
    re.DOTALL,
)


def test_the_readme_has_python_blocks():
    assert len(PYTHON_BLOCKS) >= 3


@pytest.mark.parametrize("code", PYTHON_BLOCKS)
def test_python_blocks_run(code, demo_path, tmp_path):
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()


def test_commands_in_the_readme_are_verbs():
    used = re.findall(r"^(?:\S*/)?edgellm (\w+)", README, re.MULTILINE)
    assert len(used) >= 5
    assert set(used) <= set(VERBS)


def test_links_in_the_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_error_codes_in_the_readme_are_explained():
    table = README.partition("| code | first thing to do |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    codes = set(re.findall(r"`(\w+)`", "".join(cells)))
    explained = set(re.findall(r"^\| `(\w+)` \|", ERRORS, re.MULTILINE))
    assert len(codes) >= 10
    assert codes <= explained


def test_make_targets_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
