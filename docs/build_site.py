"""The documentation as a site: python docs/build_site.py DIR [--pages-only].

Lays out DIR/pages (README as the first page, docs/, and reference pages made from the source) and
builds DIR/site with Zensical, offline; a warning, a page that no menu names or a link that leads
nowhere ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from reference import python_page, verbs_page

import edgellm
from edgellm.cli import VERBS
from edgellm.options import GenerateArguments, LoadOptions, SamplingArguments

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FROM_ROOT = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md"} | {
    "CONTRIBUTING.md": "CONTRIBUTING.md"
}
LINK = re.compile(r"(?<!!)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def lay_out(pages: Path) -> None:
    """Writes all pages. FileNotFoundError for a link to a file that is not there."""
    if pages.exists():
        shutil.rmtree(pages)
    pages.mkdir(parents=True)
    sources = {page: ROOT / name for name, page in FROM_ROOT.items()}
    sources |= {path.name: path for path in DOCS.glob("*.md")}
    for page, source in sources.items():
        (pages / page).write_text(_linked(source, sources, pages), encoding="utf-8")
    besides = (LoadOptions, GenerateArguments, SamplingArguments)
    (pages / "PYTHON.md").write_text(python_page(edgellm, besides), encoding="utf-8")
    (pages / "VERBS.md").write_text(verbs_page(VERBS), encoding="utf-8")


def unlisted(pages: Path) -> set[str]:
    """Pages that no menu leads to, and entries without a page."""
    with (DOCS / "zensical.toml").open("rb") as file:
        nav = tomllib.load(file)["project"]["nav"]
    listed = {
        page
        for section in nav
        for value in section.values()
        for page in ([value] if isinstance(value, str) else value)
    }
    return listed ^ {path.name for path in pages.glob("*.md")}


def _linked(source: Path, sources: dict[str, Path], pages: Path) -> str:
    """The text of a page, with links that hold where the pages lie. A file that is no page goes
    along, under files/."""
    page_of = {path.resolve(): page for page, path in sources.items()}

    def moved(link: re.Match[str]) -> str:
        target = (source.parent / link[1]).resolve(strict=True)
        found = page_of.get(target)
        if found is None:
            found = Path("files", target.relative_to(ROOT)).as_posix()
            if target.is_dir():
                raise FileNotFoundError(f"{source.name}: {link[1]} is a folder; name a file")
            (pages / found).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, pages / found)
        return f"]({found}{link[2] or ''})"

    return LINK.sub(moved, source.read_text(encoding="utf-8"))


def build(work: Path) -> int:
    """The exit code of Zensical on pages that are laid out; 1 for any warning."""
    shutil.copyfile(DOCS / "zensical.toml", work / "zensical.toml")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, cwd=work, env=environment, check=False).returncode


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pages-only", action="store_true")
    given = parser.parse_args(arguments)
    lay_out(given.work / "pages")
    if astray := unlisted(given.work / "pages"):
        print(f"docs/zensical.toml and the pages differ: {', '.join(sorted(astray))}")
        return 1
    return 0 if given.pages_only else build(given.work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
