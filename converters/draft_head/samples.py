"""What a head learns from: windows of tokens with the model's hidden states, from its own runtime.

Some windows are the model's own text, continued from the beginnings of the texts' windows at
temperature 1, others are the texts as they are. Hidden states are those that the head will be given
where it is used: of the same file, by the same kernels, rounded to f16. Blocks of windows are kept
in a folder, each whole or not at all; a folder belongs to one model, text and set of options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgellm.errors import FormatError, NumericError

from ..calibrate.samples import OwnText
from ..calibrate.work import make_folder
from ..distill.data import Tokens
from ..export.whole import whole_directory
from .options import DraftHeadOptions

ProgressFn = Callable[[str, int, int], None]  # what is done, how much of it, of how much
BLOCK_WINDOWS = 64
_FILE = "windows.safetensors"


@dataclass(frozen=True)
class Windows:
    """tokens: [n, window_tokens] int32. hidden: [n, window_tokens, d_model] float16, of the token
    itself, what the model's head reads."""

    tokens: Tokens
    hidden: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.tokens)

    def tensors(self, chosen: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Tokens int64 and hidden states float32 of some windows."""
        tokens = torch.from_numpy(self.tokens[chosen].astype(np.int64))
        return tokens, torch.from_numpy(self.hidden[chosen].astype(np.float32))

    @classmethod
    def joined(cls, parts: list[Windows]) -> Windows:
        tokens = np.concatenate([part.tokens for part in parts])
        return cls(tokens, np.concatenate([part.hidden for part in parts]))

    def __getitem__(self, part: slice) -> Windows:
        return Windows(self.tokens[part], self.hidden[part])


class Samples:
    """model: the `.edge` file. texts: [n, window_tokens], as windows of own text begin; may be
    empty. first_seed: of own text, whose windows have seeds of their own."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        texts: Tokens,
        options: DraftHeadOptions,
        first_seed: int,
        n_threads: int,
        progress: ProgressFn | None = None,
    ) -> None:
        self._model, self._folder, self._texts = model, folder, texts
        self._options, self._n_threads, self._progress = options, n_threads, progress
        self._first_seed = first_seed
        make_folder(folder)

    def own(self, n: int) -> Windows:
        """The first n windows of the model's own text."""
        return self._windows("own", n, self._written)

    def of_texts(self, n: int) -> Windows:
        """The first n windows of the texts, as they are."""
        return self._windows("text", n, lambda _, begin, end: self._texts[begin:end])

    def _windows(self, kind: str, n: int, tokens: Callable[[OwnText, int, int], Tokens]) -> Windows:
        blocks = []
        runtime: OwnText | None = None
        try:
            for begin in range(0, n, BLOCK_WINDOWS):
                end = min(begin + BLOCK_WINDOWS, n)
                path = self._folder / f"{kind}-{begin:08d}-{end:08d}"
                if not path.exists():
                    runtime = runtime or OwnText(
                        self._model, self._options.window_tokens, self._n_threads
                    )
                    made = tokens(runtime, begin, end)
                    _store(path, Windows(made, _checked(runtime.hidden(made), self._model)))
                blocks.append(_load(path, end - begin, self._options.window_tokens))
                if self._progress is not None:
                    self._progress(f"{kind} windows", end, n)
        finally:
            if runtime is not None:
                runtime.close()
        return Windows.joined(blocks)

    def _written(self, runtime: OwnText, begin: int, end: int) -> Tokens:
        n_prompt = self._options.prompt_tokens
        seeds = [(self._first_seed + index) % (1 << 63) for index in range(begin, end)]
        prompts: list[list[int]] = [[] for _ in seeds]
        if len(self._texts):
            rows = [self._texts[index % len(self._texts)] for index in range(begin, end)]
            prompts = [row[:n_prompt].tolist() for row in rows]
        return np.array(runtime.ids_together(seeds, prompts), dtype=np.int32)


def _checked(hidden: npt.NDArray[np.float32], model: Path) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = hidden.astype(np.float16)
    if not np.isfinite(half).all():
        raise NumericError(f"{model}: its hidden states do not fit f16", code="numeric")
    return half


def _store(path: Path, windows: Windows) -> None:
    from safetensors.numpy import save_file

    with whole_directory(path) as folder:
        save_file({"tokens": windows.tokens, "hidden": windows.hidden}, folder / _FILE)


def _load(path: Path, n: int, n_tokens: int) -> Windows:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path / _FILE)
        windows = Windows(found["tokens"], found["hidden"])
    except (OSError, SafetensorError, KeyError) as error:
        raise FormatError(
            f"{path}: {error}; remove it, and it is made again", code="file_unreadable"
        ) from error
    shape = (n, n_tokens)
    if windows.tokens.shape != shape or windows.hidden.shape[:2] != shape:
        message = f"{path}: not this run's; remove it, and it is made again"
        raise FormatError(message, code="tensor_shape")
    return windows
