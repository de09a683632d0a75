"""Keeps the status numbers of the C interface in step with base/errors.inc.

    python native/tools/c_codes.py            # give new errors the next free numbers
    python native/tools/c_codes.py --check    # exit 1 if they are not up to date

Writes include/edgellm/c_codes.h for callers and src/api/c_codes.inc for the library.

A number once given stays: an error that is gone keeps its line, so that its number is never reused.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

NATIVE = Path(__file__).parents[1]
ERRORS_INC = NATIVE / "src" / "base" / "errors.inc"
HEADER = NATIVE / "include" / "edgellm" / "c_codes.h"
PREFIX = "EDGELLM_ERROR_"
TABLE = NATIVE / "src" / "api" / "c_codes.inc"
HEAD = """\
/* The status numbers of the C interface; made by native/tools/c_codes.py from base/errors.inc.
 * Numbers are for ever; a name ("leaf_hash") is PREFIX_NAME in lower case. */
#ifndef EDGELLM_C_CODES_H
#define EDGELLM_C_CODES_H

enum {
  EDGELLM_OK = 0,
"""
TAIL = "};\n\n#endif\n"
TABLE_HEAD = "// EDGE_C_CODE(number, stable name); made by native/tools/c_codes.py.\n"


def numbers_of(header: str) -> dict[str, int]:
    """Name -> number as an existing header has them."""
    rows = re.findall(rf"^  {PREFIX}(\w+) = (\d+),$", header, re.MULTILINE)
    return {name.lower(): int(number) for name, number in rows}


def names_of(errors_inc: str) -> list[str]:
    return re.findall(r'^EDGE_ERROR\(\w+, \w+, "(\w+)"\)$', errors_inc, re.MULTILINE)


def with_new(names: list[str], numbers: dict[str, int]) -> dict[str, int]:
    """`numbers`, unchanged, and the next free ones for the names that have none."""
    given = dict(numbers)
    for name in names:
        given.setdefault(name, max(given.values(), default=0) + 1)
    return dict(sorted(given.items(), key=lambda item: item[1]))


def header_text(numbers: dict[str, int]) -> str:
    rows = (f"  {PREFIX}{name.upper()} = {number},\n" for name, number in numbers.items())
    return HEAD + "".join(rows) + TAIL


def table_text(numbers: dict[str, int]) -> str:
    rows = (f'EDGE_C_CODE({number}, "{name}")\n' for name, number in numbers.items())
    return TABLE_HEAD + "".join(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    old = HEADER.read_text(encoding="ascii") if HEADER.exists() else ""
    numbers = with_new(names_of(ERRORS_INC.read_text(encoding="ascii")), numbers_of(old))
    wanted = {HEADER: header_text(numbers), TABLE: table_text(numbers)}
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text("ascii") != text]
    if stale and options.check:
        names = ", ".join(path.name for path in stale)
        print(f"{names}: out of date; run python native/tools/c_codes.py", file=sys.stderr)
        return 1
    for path in stale:
        path.write_text(wanted[path], encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
