"""What the blob must equal: HF `tokenizers`, and for Unigram HF without the tokens that are closed.

HF's Unigram lets plain text become any piece, `</s>` included. SentencePiece does not, and neither
do we (docs/TOKENIZER.md). So for Unigram the oracle is HF with those pieces renamed to what no text
holds; byte fallback, which finds its pieces by name, is then taken from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from edgellm.errors import FormatError

from .components import Json
from .unigram import closed_texts


@contextmanager
def typed_panics(path: Path) -> Iterator[None]:
    """A description that HF accepts can still make its Rust code panic, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise FormatError(
            f"{path}: HF tokenizers itself fails on this tokenizer: {error}",
            code="tokenizer_invalid",
        ) from error


class Oracle:
    """Ids and texts as they must come out; made of a description that HF has accepted."""

    def __init__(self, data: Json) -> None:
        self.original = Tokenizer.from_str(json.dumps(data))
        # Both are set for training batches; at inference nothing may be cut or filled silently.
        self.original.no_truncation()
        self.original.no_padding()
        self._model = data["model"]
        self._closed: Tokenizer | None = None
        if self._model.get("type") == "Unigram" and self._model.get("unk_id") is not None:
            self._closed = _without_closed(data, self.original)
            added = self.original.get_added_tokens_decoder()
            own = {token.content: i for i, token in self._closed.get_added_tokens_decoder().items()}
            self._true_id = {own[token.content]: id_ for id_, token in added.items()}
            self._ids = {text: id_ for id_, (text, _) in enumerate(self._model["vocab"])}
            self._prefix, self._suffix = _affixes(self.original)

    def encode_batch(self, texts: Sequence[str], *, special: bool, bos: bool) -> list[list[int]]:
        oracle = self._closed or self.original
        oracle.encode_special_tokens = not special
        try:
            encodings = oracle.encode_batch(
                list(texts), add_special_tokens=bos and self._closed is None
            )
        finally:
            oracle.encode_special_tokens = False
        if self._closed is None:
            return [list(encoding.ids) for encoding in encodings]
        prefix, suffix = (self._prefix, self._suffix) if bos else ([], [])
        return [[*prefix, *self._open_ids(encoding), *suffix] for encoding in encodings]

    def decode(self, ids: Sequence[int], *, special: bool) -> str:
        return str(self.original.decode(list(ids), skip_special_tokens=not special))

    def _open_ids(self, encoding: Encoding) -> list[int]:
        out: list[int] = []
        for id_, text in zip(encoding.ids, encoding.tokens, strict=True):
            if id_ in self._true_id:
                out.append(self._true_id[id_])
            elif id_ == self._model["unk_id"]:
                out += self._fallback(text) or [id_]
            else:
                out.append(id_)
        return out

    def _fallback(self, text: str) -> list[int]:
        if not self._model.get("byte_fallback"):
            return []
        ids = [self._ids.get(f"<0x{byte:02X}>") for byte in text.encode()]
        found = [id_ for id_ in ids if id_ is not None]
        return found if len(found) == len(ids) else []


def _without_closed(data: Json, original: Tokenizer) -> Tokenizer:
    model = data["model"]
    added = original.get_added_tokens_decoder().values()
    closed = closed_texts(model, [token.content for token in added if token.special])
    vocab = [
        [f"\0closed {id_}\0" if text in closed else text, score]
        for id_, (text, score) in enumerate(model["vocab"])
    ]
    changed = {**model, "vocab": vocab, "byte_fallback": False}
    tokenizer = Tokenizer.from_str(json.dumps({**data, "model": changed, "post_processor": None}))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _affixes(original: Tokenizer) -> tuple[list[int], list[int]]:
    bare = original.encode("a", add_special_tokens=False).ids
    full = original.encode("a", add_special_tokens=True).ids
    at = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return list(full[:at]), list(full[at + len(bare) :])
