"""The one sanitizer: untrusted text in, text that cannot steer a terminal out.

Model output, file names, metadata and error messages all pass `visible()` before they reach a
terminal. It knows nothing of colours or widths, and it never drops a character: what was there
stays visible.
"""

from __future__ import annotations

import re

# C0 except \n and \t, DEL, C1, line and paragraph separators, bidirectional marks, embeddings,
# overrides and isolates, the zero-width byte order mark, and lone surrogates (not encodable).
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ud800-\udfff]"
)
_CONTROL_PICTURES = 0x2400
_PICTURE_OF_DELETE = "\u2421"
_REPLACEMENT = "\ufffd"


def _glyph(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    if code == 0x7F:
        return _PICTURE_OF_DELETE
    return _REPLACEMENT


def visible(text: str) -> str:
    """`text` with every control and direction character replaced by a visible glyph.

    Replaces one character by one, so pieces of a stream can be sanitized one by one.
    """
    return _HIDDEN.sub(_glyph, text)


def visible_line(text: str) -> str:
    """`visible()` for one-line places such as file names and table cells: no \\n, no \\t."""
    return visible(text).replace("\n", "\u240a").replace("\t", "\u2409")
