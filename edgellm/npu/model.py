"""A bundle, opened: text in, text out, by the executor of its target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InvalidArgumentError, UnsupportedError
from .bundle import GENERATION, TOKENIZER, Bundle, read_bundle
from .executors import runners_of
from .host import F32Array
from .session import Choose, GraphSession, generate, most_likely


class NpuModel:
    """One sequence at a time, whose beginning is reused by the next call if it is the same.

    `folder` is what `edgellm convert --target npu:...` wrote. `threads`: of executors that run on
    the CPU; 0: all. FormatError, IntegrityError: a broken bundle. UnsupportedError: the package
    that runs it is not installed. DeviceError: it does not take the graphs.
    """

    def __init__(
        self, folder: Path, *, threads: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        self.bundle: Bundle = read_bundle(folder, (settings or {}).get(GENERATION, ""))
        runners = runners_of(folder, self.bundle, threads, settings)
        self._session = GraphSession(self.bundle.facts, self.bundle.graphs, runners)
        blob = folder / TOKENIZER
        self._blob = blob.read_bytes() if blob.is_file() else None

    @property
    def session(self) -> GraphSession:
        """What was processed and how."""
        return self._session

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text, with what the model expects in front."""
        from .._native import Tokenizer

        return Tokenizer.from_blob(self._tokenizer_blob()).encode(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        from .._native import Tokenizer

        return Tokenizer.from_blob(self._tokenizer_blob()).decode(ids)

    def logits(self, ids: Sequence[int]) -> F32Array:
        """Of the token after each of ids: [n_tokens, n_vocab]."""
        self._session.rewind(0)
        return self._session.append(ids)

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int = 0,
        stop_ids: Sequence[int] | None = None,
        speculate: bool = True,
    ) -> Iterator[int]:
        """Ids after a prompt, one by one. stop_ids: None for the model's own. The same seed gives
        the same tokens with the same executor. ContextOverflowError: prompt and tokens do not fit;
        InvalidArgumentError: a parameter outside its range."""
        ids = self.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        stops = self.bundle.facts.eos_ids if stop_ids is None else stop_ids
        choose: Choose = most_likely
        if temperature > 0:
            choose = sampler(temperature, top_k, top_p, min_p, seed)
        elif temperature < 0:
            raise InvalidArgumentError("temperature must be 0 or more", code="invalid_argument")
        return generate(
            self._session, ids, max_tokens, choose=choose, stop_ids=stops, speculate=speculate
        )

    def _tokenizer_blob(self) -> bytes:
        if self._blob is None:
            raise UnsupportedError(
                "the bundle holds no tokenizer; give token ids instead of text",
                code="tokenizer_unsupported",
            )
        return self._blob


def sampler(
    temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> Callable[[F32Array, int], int]:
    """Draws from what the native sampler leaves; each position has random bits of its own
    (Philox: Salmon et al. 2011), so guesses that are thrown away change nothing."""
    from .._native import SamplerParams, distribution

    params = SamplerParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed
    )

    def choose(logits: F32Array, step: int) -> int:
        shares = distribution(np.ascontiguousarray(logits), params, step)
        at = np.random.Generator(np.random.Philox(key=[seed, step])).random()
        total = np.cumsum([share for _, share in shares])
        return shares[min(int(np.searchsorted(total, at * total[-1], "right")), len(shares) - 1)][0]

    return choose
