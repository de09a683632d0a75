"""What giving and removing names does to an index. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import FormatError, InvalidArgumentError
from .index import Index, Tag
from .names import BUILT_IN, LATEST, Reference, is_version

RESERVED = (BUILT_IN,)


@dataclass(frozen=True)
class Removed:
    """What removing names does: models that nothing names any more are deleted."""

    references: tuple[Reference, ...]
    aliases: tuple[str, ...]
    freed_bytes: int


def tagged(index: Index, reference: Reference, digest: str) -> Index:
    """With a tag more, or moved."""
    if reference.tag is None or reference.tag == LATEST:
        message = f"{reference}: latest is found, not set; give a tag as in {reference.name}:1.0.0"
        raise InvalidArgumentError(message, code="store_name")
    if reference.name in RESERVED or reference.name in index.aliases:
        taken = "built in" if reference.name in RESERVED else "an alias"
        message = f"the name {reference.name} is {taken}; take another name"
        raise InvalidArgumentError(message, code="store_name")
    old = index.tags.get(reference.name, {}).get(reference.tag)
    if old is not None and old.digest != digest and is_version(reference.tag):
        message = (
            f"{reference} stands for another model, and versions do not move; take another "
            f"version, or remove it first: edgellm rm {reference}"
        )
        raise InvalidArgumentError(message, code="store_name")
    return index.with_tag(reference, Tag(digest, time.time_ns()))


def removal(
    index: Index, references: list[Reference], unknown: Callable[[Reference], FormatError]
) -> tuple[Index, Removed]:
    """The index without them, and what that means."""
    gone: list[Reference] = []
    aliases = dict(index.aliases)
    for reference in references:
        if reference.tag is None and aliases.pop(reference.name, None) is not None:
            continue
        tags = index.tags.get(reference.name, {})
        if not tags or (reference.tag is not None and reference.tag not in tags):
            raise unknown(reference)
        wanted = sorted(tags) if reference.tag is None else [reference.tag]
        gone += [Reference(reference.name, tag) for tag in wanted]
    after = replace(index, aliases=aliases).without_tags(gone).pruned()
    freed = sum(m.n_bytes for digest, m in index.models.items() if digest not in after.models)
    lost = tuple(sorted(set(index.aliases) - set(after.aliases)))
    return after, Removed(tuple(dict.fromkeys(gone)), lost, freed)
