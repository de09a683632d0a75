"""What Textual itself may write to a terminal, and nothing else: everything else is a finding."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_MODES = "7|25|1000|1003|1004|1006|1015|1016|1049|2004|2026|2048"
_NUMBER = r"\d{1,3}"
_STYLE = rf"(?:[0-9]|2[1-9]|53|[34]8;2;{_NUMBER};{_NUMBER};{_NUMBER})"
_OWN = re.compile(
    rf"\x1b\[(?:{_STYLE}(?:;{_STYLE})*)?m"
    rf"|\x1b\[(?P<row>{_NUMBER});(?P<column>{_NUMBER})H"
    rf"|\x1b\[\?(?:{_MODES})[hl]"
    r"|\x1b\[\?(?:2026|2048)\$p"
    r"|\x1b\[>25u|\x1b\[<u"
    r"|\x1b\]22;[a-z-]{3,16}\x07"
    r"|\r?\n"
)
_BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


@cache
def steers(char: str) -> bool:
    """A character that is more than a glyph to a terminal."""
    return (
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(char) in _BIDI
        or char in "\u061c\u200e\u200f\ufeff"
    )


def findings(written: str, rows: int, columns: int) -> list[str]:
    """Whatever in `written` is neither text nor a sequence of Textual's for this window, each with
    what follows it."""
    for own in _OWN.finditer(written):
        if own["row"] and not (int(own["row"]) <= rows and int(own["column"]) <= columns):
            return [own.group()]
    rest = _OWN.sub("", written)
    return [rest[at : at + 24] for at, char in enumerate(rest) if steers(char)]
