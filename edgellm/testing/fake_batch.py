"""Several texts of a fake model in turns: no step of a model is there to share."""

from __future__ import annotations

from ..batch import TokenBatch


class FakeBatch(TokenBatch):
    """A real batch but for its steps: one token of each text."""

    def _advance(self) -> None:
        for index, stream in list(self._running.items()):
            token = next(stream, None)
            if token is not None:
                self._ready.append((index, token))
            if stream.finish_reason is not None:
                self._end(index)
