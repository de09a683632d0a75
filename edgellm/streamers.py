"""Streamers as transformers has them: objects that are handed the ids of a text as they come.

`generate(streamer=)` takes transformers' own, which need its tokenizer, and these, which need none.
Programs that only want the tokens take `Model.stream()`.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol, TextIO

from .sanitize import visible

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .model import Model
    from .results import Generation
    from .stream import TokenStream


class Streamer(Protocol):
    """`put()` gets the prompt first, int64 [1, n_prompt], then every token, int64 [1], those that
    end the text included; `end()` comes last, after errors, too."""

    def put(self, value: npt.NDArray[np.int64]) -> None:
        """More of the text."""

    def end(self) -> None:
        """That was all."""


class TextStreamer:
    """Prints a text as it comes, safe for a terminal, each character when it is whole; `file`: None
    for stdout. Special tokens are left out. One text after another."""

    def __init__(
        self, model: Model, skip_prompt: bool = False, *, file: TextIO | None = None
    ) -> None:
        self._model, self._skip_prompt, self._file = model, skip_prompt, file
        self._is_prompt = True
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def put(self, value: npt.NDArray[np.int64]) -> None:
        """As `Streamer` says."""
        is_prompt, self._is_prompt = self._is_prompt, False
        if is_prompt and self._skip_prompt:
            return
        parts = (self._model.token_bytes(int(token_id)) for token_id in self._texts(value))
        text = self._decoder.decode(b"".join(parts))
        if text:
            self.on_finalized_text(text)

    def end(self) -> None:
        """What is half a character comes as U+FFFD, and a new line."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._is_prompt = True
        self.on_finalized_text(text, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Where the text goes; for classes of one's own."""
        print(visible(text), end="\n" if stream_end else "", flush=True, file=self._file)

    def _texts(self, value: npt.NDArray[np.int64]) -> Iterator[int]:
        tokenizer = self._model._tokenizer()
        return (i for i in value.ravel().tolist() if not tokenizer.is_special(i))


class TextIteratorStreamer(TextStreamer):
    """An iterator over the pieces of a text that another thread generates.

    `timeout`: seconds that a piece may take before queue.Empty is raised; None: any time.
    """

    def __init__(
        self, model: Model, skip_prompt: bool = False, timeout: float | None = None
    ) -> None:
        super().__init__(model, skip_prompt)
        self._timeout = timeout
        self._pieces: SimpleQueue[str | None] = SimpleQueue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """To the thread that iterates."""
        if text:
            self._pieces.put(text)
        if stream_end:
            self._pieces.put(None)

    def __iter__(self) -> TextIteratorStreamer:
        return self

    def __next__(self) -> str:
        try:
            piece = self._pieces.get(timeout=self._timeout)
        except Empty:
            raise Empty(f"no text came within {self._timeout} s") from None
        if piece is None:
            raise StopIteration
        return piece


def drive(stream: TokenStream, prompt_ids: Sequence[int], streamer: Streamer) -> Generation:
    """`stream.result()`, with every token handed on as it comes."""
    import numpy as np

    try:
        streamer.put(np.array([list(prompt_ids)], np.int64))
        for token in stream:
            streamer.put(np.array([token.id], np.int64))
    finally:
        streamer.end()
    return stream.result()
