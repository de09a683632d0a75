"""`edgellm tag`: another name for a model of the store, or for a file that is copied into it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidArgumentError
from ..locate import explained
from ..store.names import Reference, parse_reference
from ..store.store import Store
from .flags import JsonFlag
from .output import print_json, print_text


def command(
    source: Annotated[
        str, typer.Argument(help="NAME or NAME:TAG of the store, an alias, or a .edge file.")
    ],
    name: Annotated[
        str, typer.Argument(help="NAME:TAG, as in mine:1.2.0; without a tag it is an alias.")
    ],
    json: JsonFlag = False,
) -> None:
    """NAME:TAG stands for this very model; an alias for whatever SOURCE stands for then. The tag
    of a version (1.2.0) never moves; NAME and NAME:latest are the highest version there is."""
    store = Store.default()
    new = parse_reference(name)
    if new.tag is not None:
        target = _tagged(store, source, new)
    else:
        target = str(store.alias(new.name, _of_store(source, name)))
    if json:
        print_json("tag", {"reference": str(new), "target": target, "alias": new.tag is None})
        return
    print_text(f"{new} -> {target}\n")


def _tagged(store: Store, source: str, new: Reference) -> str:
    if not Path(source).is_file():
        return store.tag(parse_reference(source), new).model.digest
    with explained(Path(source)):
        return store.copy_in(Path(source), new).model.digest


def _of_store(source: str, name: str) -> Reference:
    if Path(source).is_file():
        message = f"a file needs a name and a tag: edgellm tag {source} {name}:1.0.0"
        raise InvalidArgumentError(message, code="store_name")
    return parse_reference(source)
