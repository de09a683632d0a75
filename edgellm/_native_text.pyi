"""Text and ids, a part of the native module; see _native.pyi."""

from __future__ import annotations

from collections.abc import Sequence

class Tokenizer:
    """Thread-safe. Keeps the bytes it was made from alive."""

    @staticmethod
    def from_blob(blob: bytes) -> Tokenizer: ...
    def encode(self, text: str, special: bool = False, bos: bool = True) -> list[int]:
        """special: special-token strings in the text become special ids.
        bos: put in front what the model's post-processor puts there.
        """

    def decode(self, ids: Sequence[int], special: bool = False) -> str: ...
    def token_text(self, id: int) -> str:
        """The token as the vocabulary spells it ("\u0120the", "<0x0A>")."""

    def token_bytes(self, id: int) -> bytes:
        """What the token adds to a text, not at its beginning; may be half a character."""

    def is_special(self, id: int) -> bool: ...
    @property
    def n_vocab(self) -> int: ...

class StreamDecoder:
    """Ids in, text that is complete UTF-8 out; all pieces joined equal Tokenizer.decode(ids)."""

    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None: ...
    def push(self, id: int) -> str: ...
    def flush(self) -> str:
        """What is still incomplete, as U+FFFD."""
