"""The model's own text: what it says when it is asked nothing, sampled at temperature 1.

Calibration without any text of the user, on what the model itself finds likely (LLM-QAT, Liu et al.
2023, arXiv:2305.17888). Runs in the native runtime on a converted file, so the same file and seed
give the same tokens on any machine. Knows nothing of calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgellm._native import Session

RUN_MS = 1000.0
AT_ONCE = 16  # as many rows as go through a weight while it is unpacked once


class OwnText:
    """Documents sampled from a `.edge` file. FormatError and others of the runtime if it is none;
    InvalidArgumentError where n_tokens is more than its context. n_threads: 0 for all."""

    def __init__(self, path: Path, n_tokens: int, n_threads: int = 0) -> None:
        from edgellm._native import Model

        self._model = Model.load(path, n_threads=n_threads)
        self._n_tokens = n_tokens

    def ids(self, index: int, prompt: Sequence[int] = ()) -> list[int]:
        """Document `index`: it begins with `prompt`, else with the start token, or with a random
        one where the model has none."""
        return self.ids_together([index], [prompt])[0]

    def ids_together(
        self, indices: Sequence[int], prompts: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """ids() of each, several at a time in the steps of the model: the same tokens, sooner."""
        documents: list[list[int]] = []
        for begin in range(0, len(indices), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            documents += self._some(indices[part], prompts[part])
        return documents

    def hidden(self, windows: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """What the head reads of every token of windows [n, n_tokens]: [n, n_tokens, d_model]."""
        rows = []
        for window in windows:
            session = self._session()
            try:
                session.append(window.tolist())
                parts = []
                while session.pending:
                    parts.append(session.run_with_hidden(RUN_MS))
                rows.append(np.concatenate(parts))
            finally:
                session.close()
        return np.stack(rows)

    def close(self) -> None:
        self._model.close()

    def _some(self, indices: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        from edgellm._native import SamplerParams, run_batch, sample_batch

        params = [SamplerParams(temperature=1.0, seed=index) for index in indices]
        sessions: list[Session] = []
        try:
            for index, prompt in zip(indices, prompts, strict=True):
                sessions.append(self._session())
                sessions[-1].append(list(prompt) or [self._first(index)])
            running = list(range(len(sessions)))
            while running:
                outcomes = run_batch([sessions[at] for at in running], RUN_MS)
                for _, _, error in outcomes:
                    if error is not None:
                        raise error
                whole = zip(running, outcomes, strict=True)
                ready = [at for at, (is_done, _, _) in whole if is_done]
                over = [at for at in ready if sessions[at].n_tokens == self._n_tokens]
                ready = [at for at in ready if at not in over]
                running = [at for at in running if at not in over]
                chosen = sample_batch(
                    [sessions[at] for at in ready], [params[at] for at in ready], [0] * len(ready)
                )
                for at, one in zip(ready, chosen, strict=True):
                    sessions[at].append([(one or sessions[at].sample(params[at]))[0]])
            return [session.token_ids for session in sessions]
        finally:
            for session in sessions:
                session.close()

    def _session(self) -> Session:
        from edgellm._native import Session

        return Session(self._model, self._n_tokens)

    def _first(self, index: int) -> int:
        if self._model.bos_id is not None:
            return self._model.bos_id
        return int(np.random.default_rng(index).integers(self._model.n_vocab))
