"""Windows that the student continues itself, to learn where it errs (on-policy distillation).

GKD (Agarwal et al. 2023, arXiv:2306.13649): the teacher judges texts of the student's own. The
native runtime samples them from the student as it is every so many steps: a few tokens of a window
of the data, the rest at temperature 1. They are stored in the run's folder, since a run that goes
on in between has the student of then no more; the same run makes the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgellm.errors import FormatError

from ..calibrate.samples import OwnText
from ..export.whole import whole_directory
from .data import Packed, Tokens, step_windows
from .recipe import OwnOptions

_FOLDER = re.compile(r"own-(\d{8,12})")
_FILE = "tokens.safetensors"

WriteFn = Callable[[Path], Path]  # the student as a .edge file, in a folder -> its path


class OwnWindows:
    """folder: of the run. n_windows: of a step, of which a share is the student's own."""

    def __init__(
        self, folder: Path, data: Packed, options: OwnOptions, n_windows: int, seed: int
    ) -> None:
        self._folder, self._data, self._options = folder, data, options
        self._n_windows, self._seed = n_windows, seed
        self._block: tuple[int, Tokens] | None = None

    @property
    def n_own(self) -> int:
        """Of a step's windows."""
        return max(1, round(self._options.share * self._n_windows))

    def of_step(self, step: int, write: WriteFn) -> Tokens:
        """[n_own, window_tokens]; `write` is called at the first step of a block only. FormatError
        where a block's file is gone that cannot be made again."""
        first = step // self._options.every * self._options.every
        if self._block is None or self._block[0] != first:
            self._block = first, self._load_or_make(first, step, write)
        begin = (step - first) * self.n_own
        return self._block[1][begin : begin + self.n_own]

    def forget(self, oldest_step: int) -> None:
        """Removes the blocks that a run going on at `oldest_step` or later does not need."""
        needed = oldest_step // self._options.every * self._options.every
        for path in self._folder.iterdir():
            match = _FOLDER.fullmatch(path.name)
            if match and int(match[1]) < needed:
                (path / _FILE).unlink(missing_ok=True)
                path.rmdir()

    def _load_or_make(self, first: int, step: int, write: WriteFn) -> Tokens:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file, save_file

        path = self._folder / f"own-{first:08d}"
        shape = (self.n_own * self._options.every, self._data.tokens.shape[1])
        if not path.exists():
            if step != first:
                raise FormatError(
                    f"{path}: is gone, and the model that wrote it has learnt since; remove the "
                    "run's folder",
                    code="file_not_found",
                )
            with whole_directory(path) as folder:
                tokens = self._sampled(first, write(folder))
                for other in folder.iterdir():
                    other.unlink()
                save_file({"tokens": tokens}, folder / _FILE)
            return tokens
        try:
            found: Tokens = load_file(path / _FILE)["tokens"]
        except (OSError, SafetensorError, KeyError) as error:
            raise FormatError(f"{path}: {error}", code="file_unreadable") from error
        if found.shape != shape or found.dtype != np.int32:
            raise FormatError(f"{path}: not this run's", code="tensor_shape")
        return found

    def _sampled(self, first: int, model: Path) -> Tokens:
        n_tokens = self._data.tokens.shape[1]
        n_prompt = min(self._options.prompt_tokens, n_tokens - 1)
        sampler = OwnText(model, n_tokens)
        try:
            rows = []
            for step in range(first, first + self._options.every):
                # Beginnings of windows that the step does not learn from anyway.
                chosen = step_windows(len(self._data), step, self._n_windows, self._seed)
                for place, window in enumerate(chosen[: self.n_own].tolist()):
                    prompt = self._data.tokens[window, :n_prompt].tolist()
                    rows.append(sampler.ids(step * self.n_own + place, prompt))
            return np.array(rows, dtype=np.int32)
        finally:
            sampler.close()
