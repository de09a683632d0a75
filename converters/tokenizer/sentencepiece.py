"""SentencePiece `tokenizer.model` -> a description.

The file itself says how text is normalized and which algorithm merges; the class named in
`tokenizer_config.json` may only be one that adds nothing to it but BOS and EOS.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

from .bpe_files import bpe_model
from .components import Json, refuse
from .files import (
    TokenizerConfig,
    affixes,
    collect_added,
    description,
    invalid,
    plain_added,
    read_config,
)
from .protobuf import Message, Value, as_float, as_int32, as_text

_MARK = "\u2581"
_SPACES_AT_END = r" +(?![\s\S])"
_CLASSES = (None, "LlamaTokenizer", "CodeLlamaTokenizer", "PreTrainedTokenizer")
_MODEL_KINDS = {1: "Unigram", 2: "BPE", 3: "Word", 4: "Char"}


class PieceType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    type: PieceType


@dataclass
class SentencePieceModel:
    """The fields that decide about ids, with the defaults of the schema."""

    pieces: list[Piece] = field(default_factory=list)
    # trainer_spec 3, 24, 35, 41, 42
    model_type: int = 1
    whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    bos_id: int = 1
    eos_id: int = 2
    # normalizer_spec 2, 3, 4, 5
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


_TRAINER_FIELDS = {
    3: "model_type",
    24: "whitespace_as_suffix",
    35: "byte_fallback",
    41: "bos_id",
    42: "eos_id",
}
_NORMALIZER_FIELDS = {3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces"}
_NUMBERS = ("model_type", "bos_id", "eos_id")


def read_sentencepiece(path: Path, content: bytes) -> SentencePieceModel:
    model = SentencePieceModel()
    root = Message(path, memoryview(content))
    for number, wire, value, position in root.fields():
        if number > 3:  # self tests, denormalizer, extensions
            continue
        root.typed(number, wire, 2, position)
        message = root.sub(value, position)
        if number == 1:
            model.pieces.append(_read_piece(message))
        else:
            _read_spec(message, _TRAINER_FIELDS if number == 2 else _NORMALIZER_FIELDS, model)
    if not model.pieces:
        raise invalid(path, "holds no pieces: it is not a SentencePiece model")
    return model


def _read_piece(message: Message) -> Piece:
    text, score, type_ = "", 0.0, 1
    for number, wire, value, position in message.fields():
        if number == 1:
            message.typed(number, wire, 2, position)
            text = as_text(message, value, position)
        elif number == 2:
            message.typed(number, wire, 5, position)
            score = as_float(value)
        elif number == 3:
            message.typed(number, wire, 0, position)
            type_ = as_int32(value)
    if not text or not math.isfinite(score) or not 1 <= type_ <= 6:
        raise message.error(0, f"piece {text!r} with score {score} and type {type_}")
    return Piece(text, score, PieceType(type_))


def _read_spec(message: Message, names: dict[int, str], model: SentencePieceModel) -> None:
    for number, wire, value, position in message.fields():
        if names is _NORMALIZER_FIELDS and number == 2:
            message.typed(number, wire, 2, position)
            assert isinstance(value, bytes)
            model.charsmap = value
        elif number in names:
            message.typed(number, wire, 0, position)
            setattr(model, names[number], _number(names[number], value))


def _number(name: str, value: Value) -> int | bool:
    return as_int32(value) if name in _NUMBERS else bool(value)


def describe_sentencepiece(path: Path, content: bytes) -> Json:
    model = read_sentencepiece(path, content)
    config = read_config(path.parent)
    _check(path, model, config)
    vocab = {piece.text: id_ for id_, piece in enumerate(model.pieces)}
    if len(vocab) != len(model.pieces):
        raise invalid(path, "a piece is repeated")
    config = _with_own_roles(config, model)
    own = {
        id_: plain_added(id_, piece.text, special=piece.type != PieceType.USER_DEFINED)
        | {"normalized": False}
        for id_, piece in enumerate(model.pieces)
        if piece.type in (PieceType.UNKNOWN, PieceType.CONTROL, PieceType.USER_DEFINED)
    }
    added = collect_added(config, vocab, own)
    around = affixes(config, vocab, added, add_bos=True)
    legacy = config.flag("legacy", True)
    return describe_pieces(model, added, around, _prefix(model, config), legacy=legacy)


def describe_pieces(
    model: SentencePieceModel,
    added: list[Json],
    post_processor: Json | None,
    prefix: bool,
    *,
    legacy: bool = True,
) -> Json:
    """A description of a model with one piece of type UNKNOWN and none twice. prefix: a space goes
    before a text; legacy: as a normalizer, so also after an added token."""
    vocab = {piece.text: id_ for id_, piece in enumerate(model.pieces)}
    return description(
        _model(model, vocab),
        added,
        normalizer=_normalizer(model, prefix, legacy),
        pre_tokenizer=None if legacy else _metaspace(prefix),
        post_processor=post_processor,
        decoder=_decoder(model, prefix),
    )


def _check(path: Path, model: SentencePieceModel, config: TokenizerConfig) -> None:
    if config.class_name not in _CLASSES:
        raise refuse(config.path, f"tokenizer_class {config.class_name!r} without a tokenizer.json")
    if model.model_type not in (1, 2):
        kind = _MODEL_KINDS.get(model.model_type, model.model_type)
        raise refuse(path, f"SentencePiece model type {kind!r}")
    if model.remove_extra_whitespaces and not _prefix(model, config):
        raise refuse(path, "SentencePiece 'remove_extra_whitespaces' without 'add_dummy_prefix'")
    if model.remove_extra_whitespaces and not config.flag("legacy", True):
        raise refuse(config.path, "'legacy': false with SentencePiece 'remove_extra_whitespaces'")
    if not model.escape_whitespaces:
        raise refuse(path, "SentencePiece without 'escape_whitespaces'")
    if model.whitespace_as_suffix:
        raise refuse(path, "SentencePiece option 'treat_whitespace_as_suffix'")
    for piece in model.pieces:
        if piece.type == PieceType.UNUSED:
            raise refuse(path, f"SentencePiece piece {piece.text!r} of type 'UNUSED'")
    unknown = [p for p in model.pieces if p.type == PieceType.UNKNOWN]
    if len(unknown) != 1:
        raise invalid(path, f"{len(unknown)} pieces are of type 'UNKNOWN', not one")


def _prefix(model: SentencePieceModel, config: TokenizerConfig) -> bool:
    return config.flag("add_prefix_space", model.add_dummy_prefix)


def _with_own_roles(config: TokenizerConfig, model: SentencePieceModel) -> TokenizerConfig:
    values = dict(config.values)
    for key, id_ in (("bos_token", model.bos_id), ("eos_token", model.eos_id)):
        if 0 <= id_ < len(model.pieces) and model.pieces[id_].type == PieceType.CONTROL:
            values.setdefault(key, model.pieces[id_].text)
    return replace(config, values=values)


def _model(model: SentencePieceModel, vocab: dict[str, int]) -> Json:
    unknown = next(p.text for p in model.pieces if p.type == PieceType.UNKNOWN)
    if model.model_type == 1:
        return {
            "type": "Unigram",
            "unk_id": vocab[unknown],
            "vocab": [[piece.text, piece.score] for piece in model.pieces],
            "byte_fallback": model.byte_fallback,
        }
    return bpe_model(
        dict(vocab),
        score_merges(model.pieces, vocab),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def score_merges(pieces: list[Piece], vocab: dict[str, int]) -> list[list[str]]:
    """Every way to halve a piece into pieces; higher scores merge first, as transformers has it."""
    ids = {
        text: id_
        for text, id_ in vocab.items()
        if pieces[id_].type in (PieceType.NORMAL, PieceType.USER_DEFINED)
    }
    merges: list[tuple[tuple[float, int, int, int], str, str]] = []
    for text, id_ in ids.items():
        for i in range(1, len(text)):
            left, right = text[:i], text[i:]
            if left in ids and right in ids:
                key = (-pieces[id_].score, id_, len(left), len(right))
                merges.append((key, left, right))
    return [[left, right] for _, left, right in sorted(merges)]


def _normalizer(model: SentencePieceModel, prefix: bool, legacy: bool) -> Json | None:
    """The charsmap, then spaces: none at the end, one for several, one in front.

    transformers' own converter takes away any white space at the end, not spaces alone as
    SentencePiece does; this is SentencePiece's way, in components that HF has too.
    """
    steps: list[Json] = []
    if model.charsmap:
        text = base64.b64encode(model.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": text})
    if model.remove_extra_whitespaces:
        steps.append(_replace_regex(_SPACES_AT_END, ""))
        # Before spaces are squeezed, so that those in front of the text go too.
        steps += [{"type": "Prepend", "prepend": " "}, _replace_regex(" {2,}", " ")]
    elif prefix and legacy:
        steps.append({"type": "Prepend", "prepend": _MARK})
    if legacy or steps:
        steps.append({"type": "Replace", "pattern": {"String": " "}, "content": _MARK})
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _replace_regex(pattern: str, content: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _metaspace(prefix: bool) -> Json:
    scheme = "first" if prefix else "never"
    return {"type": "Metaspace", "replacement": _MARK, "prepend_scheme": scheme, "split": False}


def _decoder(model: SentencePieceModel, prefix: bool) -> Json:
    steps: list[Json] = [{"type": "Replace", "pattern": {"String": _MARK}, "content": " "}]
    if model.byte_fallback:
        steps.append({"type": "ByteFallback"})
    steps.append({"type": "Fuse"})
    if prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
