"""The documentation as a site: nothing public is missing in it, and no link leads nowhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgellm
from edgellm.cli import VERBS

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "build_site.py"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """With the pages laid out, and built where Zensical is installed."""
    work = tmp_path_factory.mktemp("site")
    has_zensical = importlib.util.find_spec("zensical") is not None
    command = [sys.executable, "-W", "error", str(SITE), str(work)]
    command += [] if has_zensical else ["--pages-only"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return work


def test_the_site_is_built_without_a_warning(work):
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed: only the pages were laid out")
    pages = {path.stem for path in (work / "pages").glob("*.md")}
    assert {path.stem for path in (work / "site").glob("*.html")} >= pages


def test_no_page_loads_anything_from_elsewhere(work):
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("zensical is not installed")
    loads = re.compile(r'<(?:script|img|iframe|source)[^>]+src="?(?:https?:)?//|@import')
    styles = re.compile(r'<link[^>]+rel="?(?:stylesheet|preload|icon)"?[^>]+href="?(?:https?:)?//')
    for page in (work / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not loads.search(text), page.name
        assert not styles.search(text), page.name


def test_the_python_reference_has_every_public_name(work):
    headings = re.findall(r"^## (\w+)$", (work / "pages" / "PYTHON.md").read_text(), re.MULTILINE)
    assert {name for name in edgellm.__all__ if not name.startswith("__")} <= set(headings)


def test_the_python_reference_has_the_members_of_a_class(work):
    page = (work / "pages" / "PYTHON.md").read_text(encoding="utf-8")
    public = [name for name in vars(edgellm.Model) if not name.startswith("_")]
    assert len(public) > 10
    assert [name for name in public if f"### Model.{name}\n" not in page] == []
    assert "threads: int | None = None" in page


def test_the_command_line_reference_has_every_verb(work):
    page = (work / "pages" / "VERBS.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == list(VERBS)
    assert page.count("Usage: edgellm") == len(VERBS)


def codes_of_the_page():
    page = (ROOT / "docs" / "ERRORS.md").read_text(encoding="utf-8")
    found = {}
    for part in page.split("\n## ")[1:]:
        for code in re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE):
            assert code not in found, f"{code} stands twice"
            found[code] = part.partition("\n")[0]
    return found


def test_every_code_of_the_native_layer_is_explained():
    listed = re.findall(
        r'^EDGE_ERROR\(\w+, (\w+), "(\w+)"\)',
        (ROOT / "native" / "src" / "base" / "errors.inc").read_text(),
        re.MULTILINE,
    )
    found = codes_of_the_page()
    assert len(listed) > 50
    assert [(error, code) for error, code in listed if error not in found.get(code, "")] == []


def test_every_code_in_python_is_explained():
    used = set()
    for folder in ("edgellm", "converters", "apps"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            used |= set(re.findall(r'\bcode=\(?"([a-z_]+)"', text))
            used |= set(re.findall(r'"(template_[a-z]+)"', text)) & {"template_syntax"}
    assert len(used) > 50
    assert sorted(used - set(codes_of_the_page())) == []
