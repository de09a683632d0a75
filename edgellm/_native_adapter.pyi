"""Adapters, a part of the native module; see _native.pyi."""

from __future__ import annotations

import os

from ._native import Model

class Adapter:
    """Low-rank changes of a model's matrices, for the sessions that name it. Immutable, may be
    shared by threads; counted against the model's memory cap while it lives.
    """

    @staticmethod
    def load(model: Model, path: str | os.PathLike[str]) -> Adapter:
        """Map an adapter file, hash all of it, and check that it goes with the model.

        FormatError (adapter_mismatch, tensor_shape, ...), IntegrityError, MemoryBudgetError.
        """

    @property
    def metadata(self) -> dict[str, str]: ...
    @property
    def root(self) -> str:
        """The hash root of its file: what tells adapters apart."""

    @property
    def rank(self) -> int:
        """The largest of its matrices."""

    @property
    def n_parameters(self) -> int: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def scratch_bytes(self) -> int:
        """What steps with it need besides; taken once for all adapters of a model."""
