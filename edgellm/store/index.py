"""The index of a store: which models it has, what they are called, where they came from.

A value: changes make another one. `read_index` and `write_index` are the only ones to know its
file. Its text is checked like that of any other file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..durable import replace_whole
from ..errors import FormatError
from ..strict_json import parse_json
from .names import Reference, as_reference, choose_tag

VERSION = 1
MAX_INDEX_BYTES = 64 << 20
MAX_SEEN = 1024
TEMP_PREFIX = ".index."
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredModel:
    """digest: of the whole header, and through its hash root of every byte. keys: of the inputs
    that it was made from, so that they are not converted again."""

    digest: str
    n_bytes: int
    added_ns: int
    origins: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tag:
    """What a name and a tag stand for, and since when."""

    digest: str
    set_ns: int


@dataclass(frozen=True)
class Index:
    """tags: by name, then by tag. aliases: short name -> reference, never to another alias. seen:
    fingerprints of inputs -> key, so that they are not hashed again."""

    models: Mapping[str, StoredModel] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, Tag]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)

    def find(self, reference: Reference) -> tuple[Reference, StoredModel] | None:
        """The model behind a name or an alias, with its whole name."""
        target = self.aliases.get(reference.name) if reference.tag is None else None
        if target is not None:
            reference = as_reference(target) or reference
        tags = self.tags.get(reference.name, {})
        newest = max(tags, key=lambda tag: (tags[tag].set_ns, tag), default=None)
        tag = choose_tag(reference.tag, tags, newest)
        if tag is None:
            return None
        return Reference(reference.name, tag), self.models[tags[tag].digest]

    def by_key(self, key: str) -> StoredModel | None:
        """The model that was made from certain inputs."""
        return next((model for model in self.models.values() if key in model.keys), None)

    def references(self, digest: str | None = None) -> Iterator[tuple[Reference, Tag]]:
        """Every name and tag, or those of one model, in order."""
        for name in sorted(self.tags):
            for tag, entry in sorted(self.tags[name].items()):
                if digest in (None, entry.digest):
                    yield Reference(name, tag), entry

    def with_model(self, model: StoredModel) -> Index:
        """Adds a model; one that is there gets the other's origins and keys too."""
        old = self.models.get(model.digest)
        if old is not None:
            model = replace(
                old,
                origins=tuple(dict.fromkeys((*old.origins, *model.origins))),
                keys=tuple(dict.fromkeys((*old.keys, *model.keys))),
            )
        return replace(self, models={**self.models, model.digest: model})

    def with_tag(self, reference: Reference, tag: Tag) -> Index:
        """`reference` has a tag."""
        assert reference.tag is not None
        tags = {**self.tags.get(reference.name, {}), reference.tag: tag}
        return replace(self, tags={**self.tags, reference.name: tags})

    def without_tags(self, references: list[Reference]) -> Index:
        """Removes tags, and aliases that then stand for nothing."""
        gone = set(references)
        kept: dict[str, dict[str, Tag]] = {}
        for reference, tag in self.references():
            if reference not in gone:
                kept.setdefault(reference.name, {})[str(reference.tag)] = tag
        index = replace(self, tags=kept)
        aliases = {
            alias: target
            for alias, target in self.aliases.items()
            if (wanted := as_reference(target)) is not None and index.find(wanted) is not None
        }
        return replace(index, aliases=aliases)

    def pruned(self) -> Index:
        """Without models that no tag names, and without fingerprints of their inputs."""
        named = {tag.digest for _, tag in self.references()}
        models = {digest: model for digest, model in self.models.items() if digest in named}
        keys = {key for model in models.values() for key in model.keys}
        seen = {mark: key for mark, key in self.seen.items() if key in keys}
        return replace(self, models=models, seen=dict(list(seen.items())[-MAX_SEEN:]))


def read_index(path: Path) -> Index:
    """The index in a file; empty if there is none. FormatError if it is damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
    except FileNotFoundError:
        return Index()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}", "file_unreadable") from None
    if len(data) > MAX_INDEX_BYTES:
        raise _damaged(path, f"is larger than {MAX_INDEX_BYTES} bytes")
    try:
        return _parsed(parse_json(data, str(path)))
    except FormatError as error:
        raise _damaged(path, error.message) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def write_index(path: Path, index: Index) -> None:
    """Replaces the file, whole or not at all, also when the power fails. The writer lock is held,
    so one temporary name will do."""
    document = {
        "version": VERSION,
        "models": {
            model.digest: {
                "n_bytes": model.n_bytes,
                "added_ns": model.added_ns,
                "origins": list(model.origins),
                "keys": list(model.keys),
            }
            for model in index.models.values()
        },
        "tags": {
            name: {tag: [entry.digest, entry.set_ns] for tag, entry in tags.items()}
            for name, tags in index.tags.items()
        },
        "aliases": dict(index.aliases),
        "seen": dict(index.seen),
    }
    temporary = path.with_name(f"{TEMP_PREFIX}tmp")
    replace_whole(path, json.dumps(document, indent=1).encode(), temporary)


def _parsed(document: object) -> Index:
    """Raises FormatError, TypeError, KeyError or ValueError for what is not an index."""
    fields = _mapping(document)
    if fields["version"] != VERSION:
        raise ValueError(f"version {fields['version']!r}, but this edgellm knows {VERSION}")
    models = {digest: _model(digest, entry) for digest, entry in _mapping(fields["models"]).items()}
    tags: dict[str, dict[str, Tag]] = {}
    for name, entries in _mapping(fields["tags"]).items():
        for tag, entry in _mapping(entries).items():
            _checked_name(f"{name}:{tag}")
            digest, set_ns = _list(entry)
            if digest not in models:
                raise ValueError(f"{name}:{tag} stands for a model that is not there")
            tags.setdefault(name, {})[tag] = Tag(_text(digest), _count(set_ns))
    aliases = {
        _checked_name(alias): _checked_name(_text(target))
        for alias, target in _mapping(fields["aliases"]).items()
    }
    seen = {mark: _text(key) for mark, key in _mapping(fields["seen"]).items()}
    return Index(models, tags, aliases, seen)


def _model(digest: str, entry: object) -> StoredModel:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest[:80]!r} is no digest")
    fields = _mapping(entry)
    return StoredModel(
        digest=digest,
        n_bytes=_count(fields["n_bytes"]),
        added_ns=_count(fields["added_ns"]),
        origins=tuple(_text(origin) for origin in _list(fields["origins"])),
        keys=tuple(_text(key) for key in _list(fields["keys"])),
    )


def _checked_name(text: str) -> str:
    if as_reference(text) is None:
        raise ValueError(f"{text[:80]!r} is no name")
    return text


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("an object is missing")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("a list is missing")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is missing")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("a count is missing")
    return value


def _damaged(path: Path, why: str) -> FormatError:
    message = (
        f"{path}: the index of the store is damaged ({why}); put an older copy in its place, "
        "or move the whole folder away: the models in its objects/ can be run as files"
    )
    return FormatError(message, code="store_index")
