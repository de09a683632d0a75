"""What a model's matrices see: calibration tokens, and moments of every matrix's inputs.

tokens.py reads texts, walk.py pushes them through one layer at a time, run.py quantizes layer by
layer and keeps what is done in a work directory. Knows no byte layout. torch is imported by
walk.py, which is imported on first use.
"""

from __future__ import annotations

from .tokens import CalibrationTokens, read_tokens

__all__ = ["CalibrationTokens", "read_tokens"]
