"""docs/TROUBLESHOOTING.md names what exists: exit codes, and messages as the sources spell them."""

from __future__ import annotations

import re
from pathlib import Path

from edgellm.cli import VERBS
from edgellm.cli.exits import EXIT_CODES_HELP, Exit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
SOURCES = [
    ROOT / "Makefile",
    *(ROOT / "edgellm").rglob("*.py"),
    *(ROOT / "converters").rglob("*.py"),
    *(ROOT / "native" / "src").rglob("*.cc"),
]


def test_every_exit_code_stands_in_the_table():
    table = re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)
    assert [int(code) for code in table] == [int(code) for code in Exit]
    assert all(f"{code} " in EXIT_CODES_HELP for code in table)


def test_every_message_of_the_tables_is_in_a_source():
    """Word for word, but for the parts that the table writes as `...`."""
    # A message may go on in the string literal of the next line.
    source = re.sub(r'"\s*\+?\s*f?"', "", "\n".join(p.read_text(encoding="utf-8") for p in SOURCES))
    rows = re.findall(r"^\| ([a-z.][^|]+) \| ", TEXT, re.MULTILINE)
    messages = [row for row in rows if row not in ("exit code", "message")]
    assert len(messages) >= 14
    pieces = [piece.strip(" ,;") for row in messages for piece in re.split(r"\.\.\.|; ", row)]
    assert [piece for piece in pieces if piece not in source] == []


def test_commands_are_verbs():
    used = re.findall(r"`edgellm (\w+)", TEXT)
    assert len(used) >= 5
    assert set(used) <= set(VERBS)
