"""The colours of a modern terminal, whatever runs the tests. Textual reads this when imported."""

from __future__ import annotations

import os

os.environ["TEXTUAL_COLOR_SYSTEM"] = "truecolor"
os.environ.pop("NO_COLOR", None)
