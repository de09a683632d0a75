"""From a name to a file that can be loaded: what has to be converted is, once, into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..locate import Found, find
from .output import note
from .progress import progress_bar

if TYPE_CHECKING:
    from ..store.store import Store, Stored


def model_file(name: str) -> Path:
    """The .edge file that `name` means. A checkpoint or a GGUF file is converted the first time,
    which a note says. Raises what converting raises."""
    found = find(name)
    return converted(found, {}).path if found.is_source else found.path


def converted(found: Found, wishes: dict[str, Any]) -> Found:
    """What a source is when it has been converted with `wishes`, arguments of convert()."""
    from ..store.made import made_once  # not at every start: most models are files

    return made_once(
        found,
        wishes,
        progress_bar,
        lambda store, source, key: convert_into(store, source, key, wishes),
    )


def convert_into(store: Store, found: Found, key: str, wishes: dict[str, Any]) -> Stored:
    """Converts `found` if nobody has yet; says what happens, and under which name."""
    from ..planner import mib
    from ..store.made import named_by_key
    from .allocate import shown_on
    from .convert import converters

    reference = named_by_key(found, key).reference
    assert reference is not None
    warnings: tuple[str, ...] = ()
    done = False

    def produce(out: Path) -> None:
        nonlocal warnings, done
        note(f"note: {found.path} is converted, once, into the store")
        tools = converters("edgellm.converters")
        with progress_bar() as bar:
            report = tools.convert(found.path, out, progress=shown_on(bar), **wishes)
        warnings, done = report.warnings, True

    stored = store.make(key, produce, reference, found.origin, on_wait=say_waiting)
    for warning in warnings:
        note(f"note: {warning}")
    what = f"converted, {mib(stored.model.n_bytes)}" if done else "had been converted before"
    note(f"note: {what}; its name is {stored.reference} (edgellm rm removes it)")
    return stored


def say_waiting() -> None:
    """A note for the callbacks of the store."""
    note("note: another process is making this model; waiting for it")
