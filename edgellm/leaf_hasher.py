"""SHA-256 of every 1 MiB of a stream: the leaves of a `.edge` file."""

from __future__ import annotations

import hashlib

from .edgeheader import LEAF_BYTES


class LeafHasher:
    """Takes the stream in parts of any size."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._digests = bytearray()
        self._leaf = hashlib.sha256()

    def update(self, view: memoryview) -> None:
        while len(view):
            room = LEAF_BYTES - self.n_bytes % LEAF_BYTES
            part = view[:room]
            self._leaf.update(part)
            self.n_bytes += len(part)
            view = view[room:]
            if self.n_bytes % LEAF_BYTES == 0:
                self._digests += self._leaf.digest()
                self._leaf = hashlib.sha256()

    def digests(self) -> bytes:
        """Of the stream so far; its last leaf may be shorter."""
        if self.n_bytes % LEAF_BYTES == 0:
            return bytes(self._digests)
        return bytes(self._digests) + self._leaf.digest()
