"""The model's own text: what it says when it is asked nothing, sampled at temperature 1.

Calibration without any text of the user, on what the model itself finds likely (LLM-QAT, Liu et al.
2023, arXiv:2305.17888). Runs in the native runtime on a converted file, so the same file and seed
give the same tokens on any machine. Knows nothing of calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

RUN_MS = 1000.0


class OwnText:
    """Documents sampled from a `.edge` file. FormatError and others of the runtime if it is none;
    InvalidArgumentError where n_tokens is more than its context."""

    def __init__(self, path: Path, n_tokens: int) -> None:
        from edgellm._native import Model

        self._model = Model.load(path)
        self._n_tokens = n_tokens

    def ids(self, index: int, prompt: Sequence[int] = ()) -> list[int]:
        """Document `index`: it begins with `prompt`, else with the start token, or with a random
        one where the model has none."""
        from edgellm._native import SamplerParams, Session

        session = Session(self._model, self._n_tokens)
        try:
            params = SamplerParams(temperature=1.0, seed=index)
            session.append(list(prompt) or [self._first(index)])
            while True:
                while not session.run(RUN_MS):
                    pass
                if session.n_tokens == self._n_tokens:
                    return session.token_ids
                session.append([session.sample(params)[0]])
        finally:
            session.close()

    def close(self) -> None:
        self._model.close()

    def _first(self, index: int) -> int:
        if self._model.bos_id is not None:
            return self._model.bos_id
        return int(np.random.default_rng(index).integers(self._model.n_vocab))
