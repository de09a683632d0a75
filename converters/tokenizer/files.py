"""Reading of the JSON files around a tokenizer: hostile input, typed errors.

Knows `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`; not the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError

from .components import Json

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
_MAX_ID = 1 << 24


def invalid(path: Path, what: str) -> FormatError:
    return FormatError(f"{path}: {what}", code="tokenizer_invalid")


def load_json(path: Path) -> Json | None:
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        if (
            "\\ud" in text.lower()
        ):  # half of a pair is no character: fails here, not somewhere later
            json.dumps(data, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {error}", code="json_syntax") from error
    if not isinstance(data, dict):
        raise FormatError(f"{path}: not a JSON object", code="json_type")
    return data


def token_text(value: Any) -> str | None:
    """tokenizer_config.json writes a token as a string or as {"content": ...}."""
    text = value.get("content") if isinstance(value, Mapping) else value
    return text if isinstance(text, str) else None


@dataclass(frozen=True)
class TokenizerConfig:
    """The files beside a tokenizer that has no `tokenizer.json`."""

    path: Path
    values: Json
    added: Mapping[int, Json]  # as in the "added_tokens" of tokenizer.json
    added_ids: Mapping[str, int]  # of added_tokens.json
    specials: tuple[str, ...]  # by role, then the additional ones

    @property
    def class_name(self) -> str | None:
        """`tokenizer_class` without the "Fast" that only says which code reads it."""
        name = self.values.get("tokenizer_class")
        return name.removesuffix("Fast") if isinstance(name, str) else None

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise FormatError(f"{self.path}: {key!r} must be true or false", code="json_type")
        return value

    def role(self, key: str) -> str | None:
        return token_text(self.values.get(key))


def read_config(directory: Path) -> TokenizerConfig:
    path = directory / "tokenizer_config.json"
    values = dict(load_json(directory / "special_tokens_map.json") or {})
    values.update(load_json(path) or {})
    decoder = values.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise FormatError(f"{path}: 'added_tokens_decoder' must be an object", code="json_type")
    added = {}
    for key, entry in decoder.items():
        id_ = _id(path, key, int(key) if key.isdecimal() and len(key) <= 8 else None)
        added[id_] = _added_entry(path, id_, entry)
    ids_path = directory / "added_tokens.json"
    ids = load_json(ids_path) or {}
    extra = values.get("additional_special_tokens") or ()
    listed = [*(values.get(role) for role in _ROLES), *(extra if isinstance(extra, list) else ())]
    texts = [text for text in map(token_text, listed) if text]
    return TokenizerConfig(
        path=path,
        values=values,
        added=added,
        added_ids={text: _id(ids_path, text, id_) for text, id_ in ids.items()},
        specials=tuple(dict.fromkeys(texts)),
    )


def _id(path: Path, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_ID:
        raise invalid(path, f"the id of {name!r} is not a number from 0 to {_MAX_ID - 1}")
    return value


def _added_entry(path: Path, id_: int, entry: Any) -> Json:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("content"), str):
        raise invalid(path, f"added token {id_} has no 'content'")
    out: Json = {"id": id_, "content": entry["content"]}
    for key in ("single_word", "lstrip", "rstrip", "normalized", "special"):
        value = entry.get(key, False)
        if not isinstance(value, bool):
            raise invalid(path, f"{key!r} of added token {id_} is not true or false")
        out[key] = value
    return out


def plain_added(id_: int, text: str, *, special: bool) -> Json:
    return {
        "id": id_,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": not special,
        "special": special,
    }


def collect_added(
    config: TokenizerConfig, vocab: Mapping[str, int], own: Mapping[int, Json] | None = None
) -> list[Json]:
    """Added tokens as transformers registers them; `own` are those of the model file itself.

    A special token that only a role names must have an id already: making one up would shift it
    away from the row that the model was trained with.
    """
    entries: dict[int, Json] = {**(own or {}), **config.added}
    known = {entry["content"]: id_ for id_, entry in entries.items()}
    for text, id_ in config.added_ids.items():
        if id_ not in entries:
            entries[id_] = plain_added(id_, text, special=text in config.specials)
            known[text] = id_
    for text in config.specials:
        found = known.get(text, vocab.get(text))
        if found is None:
            raise invalid(config.path, f"special token {text!r} has no id in any file")
        entries.setdefault(found, plain_added(found, text, special=True))
    for id_, entry in entries.items():
        text = entry["content"]
        if vocab.get(text, id_) != id_ or known.get(text, id_) != id_:
            raise invalid(config.path, f"added token {text!r} has two ids")
    return [entries[id_] for id_ in sorted(entries)]


def bos_template(path: Path, bos: str | None, eos: str | None, ids: Mapping[str, int]) -> Json:
    """A post-processor that puts `bos` in front and `eos` behind, where given."""
    used = [text for text in (bos, eos) if text is not None]
    for text in used:
        if text not in ids:
            raise invalid(path, f"{text!r}, which goes around every text, has no id")
    single: list[Json] = [{"Sequence": {"id": "A", "type_id": 0}}]
    if bos is not None:
        single.insert(0, {"SpecialToken": {"id": bos, "type_id": 0}})
    if eos is not None:
        single.append({"SpecialToken": {"id": eos, "type_id": 0}})
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in used},
    }


def description(model: Json, added: list[Json], **parts: Json | None) -> Json:
    """A `tokenizer.json`; `parts` are normalizer, pre_tokenizer, post_processor and decoder."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": parts.get("normalizer"),
        "pre_tokenizer": parts.get("pre_tokenizer"),
        "post_processor": parts.get("post_processor"),
        "decoder": parts.get("decoder"),
        "model": model,
    }


def affixes(
    config: TokenizerConfig, vocab: Mapping[str, int], added: list[Json], *, add_bos: bool
) -> Json | None:
    """The template that `add_bos_token` and `add_eos_token` ask for, or None for neither."""
    ids = {**vocab, **{entry["content"]: entry["id"] for entry in added}}
    chosen = []
    for key, role, default in (
        ("add_bos_token", "bos_token", add_bos),
        ("add_eos_token", "eos_token", False),
    ):
        wanted = config.flag(key, default)
        text = config.role(role)
        if wanted and text is None and key in config.values:
            raise invalid(config.path, f"{key!r} is set but there is no {role!r}")
        chosen.append(text if wanted else None)
    bos, eos = chosen
    return None if bos is None and eos is None else bos_template(config.path, bos, eos, ids)
