"""The draft head of a model, a part of the native module; see _native.pyi."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ._native import Model

class DraftHead:
    """One sequence of the head in a model's file, for measurements; its memory counts against the
    model's cap. For one thread at a time (InvalidArgumentError otherwise).

    UnsupportedError (feature_unsupported): the file has none. n_ctx: of rows, 0 for the most.
    """

    def __init__(self, model: Model, n_ctx: int = 0) -> None: ...
    @property
    def ids(self) -> list[int]: ...  # that it can draft, ascending
    @property
    def n_rows(self) -> int: ...
    def add(
        self, tokens: Sequence[int], hidden: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Rows behind those there are -> (logits [n, len(ids)], hidden [n, d_model] for rows that
        draft on from them). hidden: [n, d_model], of the row that chose each token: what
        run_with_hidden() gives of the token before it (zeros before the first), or what add() gave.
        ContextOverflowError beyond n_ctx."""

    def rewind(self, n_rows: int) -> None:
        """Keep the first n_rows rows."""
