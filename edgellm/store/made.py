"""Models made of sources: once, and found again afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .sources import Progress, content_key, fingerprint
from .store import Store, Stored

if TYPE_CHECKING:
    from ..locate import Found


def made_once(
    found: Found,
    wishes: dict[str, Any],
    progress: Callable[[], AbstractContextManager[Progress]],
    make: Callable[[Store, Found, str], Stored],
) -> Found:
    """The .edge file of a source, converted with `wishes`: the one that was made of these inputs
    before, or what `make` puts into the store under their key. `progress` is shown while the
    inputs are hashed. Raises what `make` raises."""
    store = Store.default()
    mark = fingerprint(found.path, wishes)
    known = store.index().seen.get(mark)
    model = None if known is None else store.find_key(known)
    if model is not None:
        return replace(found, path=store.path(model.digest), is_source=False)
    with progress() as bar:
        key = content_key(found.path, wishes, bar)
    stored = make(store, found, key)
    store.see(mark, key)
    return replace(found, path=stored.path, is_source=False, reference=stored.reference)


def named_by_key(found: Found, key: str) -> Found:
    """With a name of its own where it has none: the beginning of its key is the tag."""
    assert found.reference is not None
    if found.reference.tag is not None:
        return found
    return replace(found, reference=replace(found.reference, tag=key[:12]))
