"""tokenizer.ggml.*: the vocabulary of a GGUF file as a description that tokenizer/ compiles.

Two kinds are read: "llama" (SentencePiece's pieces with scores) and "gpt2" (byte-level BPE with
merges, cut by a pattern that tokenizer.ggml.pre names). Types of tokens decide which are special.
What a file leaves open is what llama.cpp assumes (src/llama-vocab.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.errors import FormatError, UnsupportedError

from .pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

if TYPE_CHECKING:
    from ..tokenizer import Description

Json = dict[str, Any]

_PREFIX = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
MAX_TOKENS = 1 << 24
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_SPM_ROLES = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
# Control tokens that end a reply, besides those that keys name.
_ENDS = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "<|end_of_text|>",
        "<eos>",
    }
)
_REFUSED = {
    "bert": "WordPiece (BERT's)",
    "t5": "Unigram (T5's)",
    "rwkv": "RWKV's",
    "plamo2": "PLaMo 2's",
    "gemma4": "Gemma 4's",
}


class TokenType(IntEnum):
    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Vocabulary:
    """Checked when asked for; a file without one has no tokens."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self._path = path
        self._values = {
            key.removeprefix(_PREFIX): value
            for key, value in metadata.items()
            if key.startswith(_PREFIX)
        }
        self._template = metadata.get(_TEMPLATE)
        self._arch = metadata.get("general.architecture")
        self.kind = self._text("model", "no_vocab")
        tokens = self._list("tokens", str)
        if self.kind in ("no_vocab", "none"):
            tokens = []
        self._tokens: list[str] = tokens
        self._types = self._token_types()

    @property
    def n_tokens(self) -> int:
        return len(self._tokens)

    def token_ids(self) -> Json:
        """BOS, and all that end a reply, as config.json has them."""
        bos = self._role("bos_token_id")
        ends = [self._role(f"{name}_token_id") for name in ("eos", "eot", "eom")]
        texts = [
            id_
            for id_, (text, kind) in enumerate(zip(self._tokens, self._types, strict=True))
            if kind == TokenType.CONTROL and text in _ENDS
        ]
        found = [id_ for id_ in (*ends, *texts) if id_ is not None]
        return {"bos_token_id": bos, "eos_token_id": list(dict.fromkeys(found))}

    def special_tokens(self) -> Json:
        """Their texts by the names of tokenizer_config.json."""
        ids = {name: self._role(key) for name, key in _ROLES.items()}
        return {
            name: self._tokens[id_]
            for name, id_ in ids.items()
            if id_ is not None and id_ < len(self._tokens)
        }

    def chat_template(self) -> str | None:
        if self._template is not None and not isinstance(self._template, str):
            raise self._invalid(f"key '{_TEMPLATE}' must be a text")
        return self._template or None

    def warnings(self) -> list[str]:
        if self.kind == "gpt2" and self._pre() == "default":
            return [
                "tokenizer.ggml.pre is missing or 'default': text is cut by llama.cpp's fallback, "
                "which is no model's own"
            ]
        return []

    def description(self) -> Description | None:
        """None: the file has no vocabulary. UnsupportedError: one of a kind that is not read."""
        if not self._tokens:
            return None
        from ..tokenizer import Description

        self._check_texts()
        if self.kind == "llama":
            return Description(self._path, self._sentencepiece())
        if self.kind == "gpt2":
            return Description(self._path, self._byte_level())
        what = _REFUSED.get(self.kind, f"of the kind '{self.kind[:40]}'")
        raise UnsupportedError(
            f"{self._path}: its tokenizer, {what}, is not read from GGUF; convert the Hugging Face "
            "directory if its architecture is supported",
            code="tokenizer_unsupported",
        )

    def _sentencepiece(self) -> Json:
        from ..tokenizer.files import bos_template
        from ..tokenizer.sentencepiece import (
            Piece,
            PieceType,
            SentencePieceModel,
            describe_pieces,
        )

        scores = self._list("scores", float)
        if len(scores) < self.n_tokens:
            raise self._invalid(f"{len(scores)} scores for {self.n_tokens} tokens")
        unknown = self._unknown_id()
        prefix = self._flag("add_space_prefix", True)
        model = SentencePieceModel(
            pieces=[
                Piece(text, score, PieceType.UNKNOWN if id_ == unknown else PieceType(kind))
                for id_, (text, score, kind) in enumerate(
                    zip(self._tokens, scores, self._types, strict=False)
                )
            ],
            model_type=2,
            byte_fallback=TokenType.BYTE in self._types,
            add_dummy_prefix=prefix,
            remove_extra_whitespaces=self._flag("remove_extra_whitespaces", False),
        )
        bos, eos = self._around(add_bos=True)
        ids = {text: id_ for id_, text in enumerate(self._tokens)}
        around = bos_template(self._path, bos, eos, ids) if bos or eos else None
        return describe_pieces(model, self._added(), around, prefix)

    def _unknown_id(self) -> int:
        """The token of type UNKNOWN; some converters call it CONTROL, as all that are special."""
        marked = [id_ for id_, kind in enumerate(self._types) if kind == TokenType.UNKNOWN]
        named = self._role("unknown_token_id")
        if len(marked) > 1 or (not marked and named is None):
            raise self._invalid(f"{len(marked)} tokens are of type UNKNOWN, not one")
        return marked[0] if marked or named is None else named

    def _byte_level(self) -> Json:
        from ..tokenizer.bpe_files import bpe_model, byte_level
        from ..tokenizer.files import bos_template, description

        vocab = {
            text: id_
            for id_, text in enumerate(self._tokens)
            if self._types[id_] != TokenType.UNUSED
        }
        pre = self._pre_tokenizer()
        bos, eos = self._around(add_bos=pre.add_bos)
        return description(
            bpe_model(vocab, self._merges(vocab), ignore_merges=pre.ignore_merges),
            self._added(),
            normalizer={"type": pre.normalizer} if pre.normalizer else None,
            pre_tokenizer=pre.component(self._flag("add_space_prefix", False)),
            post_processor=bos_template(self._path, bos, eos, vocab) if bos or eos else None,
            decoder=byte_level(True, True),
        )

    def _pre(self) -> str:
        return self._text("pre", "default")

    def _pre_tokenizer(self) -> PreTokenizer:
        found = PRE_TOKENIZERS.get(self._pre())
        if found is None:
            raise UnsupportedError(
                f"{self._path}: the pre-tokenizer '{self._pre()[:60]}' is not known (known: "
                f"{', '.join(sorted(PRE_TOKENIZERS))}); convert the Hugging Face directory",
                code="tokenizer_unsupported",
            )
        return found

    def _merges(self, vocab: Mapping[str, int]) -> list[list[str]]:
        merges = []
        for number, text in enumerate(self._list("merges", str)):
            cut = text.find(" ", 1)
            pair = [text[:cut], text[cut + 1 :]]
            if cut < 0 or any(part not in vocab for part in (*pair, "".join(pair))):
                raise self._invalid(f"merge {number} ({text[:60]!r}) is not in the vocabulary")
            merges.append(pair)
        if not merges:
            raise self._invalid("key 'tokenizer.ggml.merges' is missing")
        return merges

    def _added(self) -> list[Json]:
        """Control tokens are special; those that users defined are found in texts, too."""
        from ..tokenizer.files import plain_added

        special = (TokenType.CONTROL, TokenType.UNKNOWN)
        # As transformers has them there: what follows a control token loses its first spaces.
        strips = self._arch == "phi3" and self.kind == "llama"
        return [
            plain_added(id_, text, special=kind in special)
            | {"normalized": False, "rstrip": strips and kind == TokenType.CONTROL and id_ > 2}
            for id_, (text, kind) in enumerate(zip(self._tokens, self._types, strict=True))
            if kind in (*special, TokenType.USER_DEFINED)
        ]

    def _around(self, add_bos: bool) -> tuple[str | None, str | None]:
        """The tokens that go before and behind every text."""
        texts: list[str | None] = []
        for name, default in (("bos", add_bos), ("eos", False)):
            wanted = self._flag(f"add_{name}_token", default)
            id_ = self._role(f"{name}_token_id")
            texts.append(self._tokens[id_] if wanted and id_ is not None else None)
        return texts[0], texts[1]

    def _role(self, key: str) -> int | None:
        default = _SPM_ROLES.get(key) if self.kind == "llama" else None
        value = self._values.get(key)
        if value is None:
            return default if default is not None and default < self.n_tokens else None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._invalid(f"key '{_PREFIX}{key}' must be a token id")
        # llama.cpp warns of ids beyond the vocabulary and goes on without; -1 means none.
        within = 0 <= value < (self.n_tokens or MAX_TOKENS)
        return value if within else None

    def _token_types(self) -> list[int]:
        types: list[int] = self._list("token_type", int) or [TokenType.NORMAL] * self.n_tokens
        if len(types) < self.n_tokens:
            raise self._invalid(f"{len(types)} token types for {self.n_tokens} tokens")
        known = [kind if kind in _TYPES else TokenType.NORMAL for kind in types[: self.n_tokens]]
        return [TokenType.NORMAL if kind == TokenType.UNDEFINED else kind for kind in known]

    def _check_texts(self) -> None:
        if len(set(self._tokens)) != self.n_tokens:
            raise self._invalid("a token stands twice in the vocabulary")
        if "" in self._tokens:
            raise self._invalid(f"token {self._tokens.index('')} is empty")

    def _text(self, key: str, default: str) -> str:
        value = self._values.get(key, default)
        if not isinstance(value, str):
            raise self._invalid(f"key '{_PREFIX}{key}' must be a text")
        return value

    def _flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self._invalid(f"key '{_PREFIX}{key}' must be true or false")
        return value

    def _list(self, key: str, kind: type) -> list[Any]:
        value = self._values.get(key, [])
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, list) or not all(type(item) in kinds for item in value):
            raise self._invalid(f"key '{_PREFIX}{key}' must be an array of {kind.__name__}")
        if len(value) > MAX_TOKENS:
            raise self._invalid(f"key '{_PREFIX}{key}' has more than {MAX_TOKENS} values")
        return value

    def _invalid(self, what: str) -> FormatError:
        return FormatError(f"{self._path}: {what}", code="tokenizer_invalid")


_TYPES = frozenset(int(kind) for kind in TokenType)
