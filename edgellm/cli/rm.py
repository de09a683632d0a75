"""`edgellm rm`: names out of the store, and with the last name of a model its file."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InvalidArgumentError
from ..planner import mib
from ..store.names import Reference, parse_reference
from ..store.store import Store
from .flags import JsonFlag
from .output import print_json, print_text


def command(
    names: Annotated[
        list[str] | None, typer.Argument(help="NAME:TAG, a NAME that has one tag, or an alias.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Of a NAME all tags.")] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Delete downloads that were not finished.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and how much it would free.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Removing an alias removes no model. A model in use goes on working until it is closed."""
    if not names and not unfinished:
        message = "NAME is missing: what to remove (edgellm list shows what there is)"
        raise InvalidArgumentError(message, code="invalid_argument")
    store = Store.default()
    references = [_reference(store, name, every) for name in names or ()]
    removed = store.remove(references, dry_run=dry_run)
    pulled_bytes = 0
    if unfinished:
        pulled_bytes = sum(store.unfinished().values()) if dry_run else store.discard_unfinished()
    data = {
        "references": [str(reference) for reference in removed.references],
        "aliases": list(removed.aliases),
        "freed_bytes": removed.freed_bytes + pulled_bytes,
        "dry_run": dry_run,
    }
    if json:
        print_json("rm", data)
        return
    gone = [*map(str, removed.references), *(f"alias {alias}" for alias in removed.aliases)]
    if unfinished:
        gone.append("unfinished downloads")
    verb, frees = ("would remove", "would free") if dry_run else ("removed", "freed")
    print_text(f"{verb} {', '.join(gone)}; {frees} {mib(removed.freed_bytes + pulled_bytes)}\n")


def _reference(store: Store, name: str, every: bool) -> Reference:
    """A name with several tags has to say which, or that all are meant."""
    reference = parse_reference(name)
    tags = store.index().tags.get(reference.name, {})
    if reference.tag is None and len(tags) > 1 and not every:
        message = (
            f"{reference} has {len(tags)} tags ({', '.join(sorted(tags)[:6])}): write "
            f"{reference}:TAG, or --all"
        )
        raise InvalidArgumentError(message, code="store_choice")
    return reference
