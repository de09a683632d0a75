"""File sizes, and that the tree in the README is the tree in the repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_LINES = {".py": 400, ".pyi": 400, ".cc": 500, ".h": 500, ".inc": 500, ".cu": 500}
MAX_LINES |= {".metal": 500, ".mm": 500, ".comp": 500, ".glsl": 500}
OVER_THE_LIMIT: frozenset[str] = frozenset()  # stays empty: split the file instead


def tracked_files() -> list[Path]:
    """Files of the repository as git sees them, new ones included, or of the unpacked sdist."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        paths = [ROOT / line for line in listing.stdout.splitlines()]
    else:
        paths = list(ROOT.rglob("*"))
    skipped = {"third_party", "build", ".venv", "__pycache__"}
    return [p for p in paths if p.is_file() and not skipped & set(p.relative_to(ROOT).parts)]


def test_files_stay_short():
    long = {
        str(path.relative_to(ROOT)): n_lines
        for path in tracked_files()
        if path.suffix in MAX_LINES
        and (n_lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES[path.suffix]
    }
    assert set(long) == OVER_THE_LIMIT, long


def test_cxx_sources_are_ascii():
    bad = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix in (".cc", ".h", ".cu", ".inc", ".metal", ".mm", ".comp", ".glsl")
        and not path.read_bytes().isascii()
    ]
    assert bad == []


def test_test_data_stays_under_one_megabyte():
    data = ROOT / "tests" / "data"
    assert sum(p.stat().st_size for p in tracked_files() if data in p.parents) <= 1 << 20


def test_the_tree_in_the_readme_is_the_real_one():
    """Every path of the block exists, and every top-level entry and package is in the block."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n(edgellm/ .*?)```", readme, re.DOTALL)
    assert block, "README.md has no tree block"
    named = readme_paths(block.group(1))
    missing = [path for path in named if not (ROOT / path).exists()]
    assert missing == []
    files = [path.relative_to(ROOT) for path in tracked_files()]
    real = {p.parts[0] + "/" for p in files if len(p.parts) > 1 and not p.parts[0].startswith(".")}
    real |= {
        f"native/src/{p.parts[2]}/"
        for p in files
        if p.parts[:2] == ("native", "src") and p.parts[3:]
    }
    assert real - set(named) == set()


def readme_paths(block: str) -> list[str]:
    """Paths of an indented tree: two spaces a level, the name before the first blank."""
    stack: list[str] = []
    paths = []
    for line in block.splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        stack[depth:] = [name]
        paths.append("".join(stack))
    return paths


def test_the_tree_reader_joins_levels():
    assert readme_paths("a/   one\n  b.py two\n  c/\n    d.h\ne/") == [
        "a/",
        "a/b.py",
        "a/c/",
        "a/c/d.h",
        "e/",
    ]
