"""Sessions on disk, a part of the native module; see _native.pyi."""

from __future__ import annotations

import os

class SessionFile:
    """A session on disk; all but its KV was checked when it was opened."""

    @staticmethod
    def open(path: str | os.PathLike[str]) -> SessionFile:
        """SessionError for what is no whole session file; FormatError if it cannot be read."""

    @property
    def note(self) -> bytes: ...  # as given to save()
    @property
    def token_ids(self) -> list[int]: ...
    @property
    def n_kv_tokens(self) -> int: ...  # of the ids, those with KV
    @property
    def identity(self) -> dict[str, str]: ...  # what the KV depends on
