"""Every command line in the documentation is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from edgellm.cli import VERBS, parser_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(page: Path) -> list[list[str]]:
    """The words after `edgellm` of every such line in a block of shell."""
    found = []
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"[;|&<>]", line.partition(" #")[0]):
                words = shlex.split(part) if part.count('"') % 2 == 0 else []
                if words[:1] == ["edgellm"] and words[1:2] and words[1] in VERBS:
                    found.append(words[1:])
    return found


def take(verb: str, words: list[str]) -> None:
    """Reads the words as the program does, and does nothing."""
    command = typer.main.get_command(parser_of(verb))
    with command.make_context(verb, [*words]) as context:
        if isinstance(command, typer.core.TyperGroup):
            name, action, rest = command.resolve_command(context, words)
            assert action is not None
            action.make_context(name or "", rest, parent=context).close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_taken(page: Path) -> None:
    for verb, *words in commands_of(page):
        if "--help" not in words:
            take(verb, words)


@pytest.mark.parametrize(
    ("verb", "words"),
    [("pull", ["x", "--nosuch"]), ("fleet", ["bild", "x"]), ("fleet", ["sign", "x"])],
)
def test_others_are_not(verb: str, words: list[str]) -> None:
    # Of click, or of the copy of it that typer has: which one depends on typer's version.
    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        take(verb, words)


def test_there_are_commands() -> None:
    assert sum(len(commands_of(page)) for page in PAGES) >= 60
