"""`edgellm show`: one model of the store, by any of its names."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..edgefile import read_header
from ..planner import mib, plan_of
from ..store.names import parse_reference
from ..store.store import Store, Stored
from .flags import JsonFlag
from .list import utc
from .output import print_json, print_table

_SHOWN_CONTEXT = 4096


def command(
    name: Annotated[str, typer.Argument(help="NAME, NAME:TAG, NAME:1.2 or an alias.")],
    json: JsonFlag = False,
) -> None:
    """Where it is, where it came from, what else it is called, what it needs."""
    store = Store.default()
    data = _described(store, store.get(parse_reference(name)))
    if json:
        print_json("show", data)
        return
    memory = f"{mib(data['memory_bytes'])} with a context of {data['memory_n_ctx']:,}"
    print_table(
        [
            ("name", data["reference"]),
            ("also", ", ".join([*data["references"], *data["aliases"]]) or "nothing"),
            ("size", mib(data["n_bytes"])),
            ("architecture", data["arch"]),
            ("memory", memory),
            ("from", ", ".join(data["origins"])),
            ("added", data["added"]),
            ("digest", data["digest"]),
            ("root", data["root"]),
            ("path", data["path"]),
        ]
    )


def _described(store: Store, stored: Stored) -> dict[str, Any]:
    index, model = store.index(), stored.model
    header = read_header(stored.path)
    plan = plan_of(header, 0)
    n_ctx = min(plan.n_ctx_train, _SHOWN_CONTEXT)
    others = [str(found) for found, _ in index.references(model.digest)]
    return {
        "reference": str(stored.reference),
        "references": [other for other in others if other != str(stored.reference)],
        "aliases": [
            alias for alias, target in sorted(index.aliases.items()) if target in _all_names(others)
        ],
        "digest": model.digest,
        "root": header.root,
        "n_bytes": model.n_bytes,
        "arch": header.spec.get("arch", "unknown"),
        "memory_n_ctx": n_ctx,
        "memory_bytes": plan.bytes_at(n_ctx),
        "origins": list(model.origins),
        "added": utc(model.added_ns),
        "path": str(stored.path),
    }


def _all_names(references: list[str]) -> set[str]:
    """What an alias of one of them may stand for: the name alone too."""
    return {part for name in references for part in (name, name.partition(":")[0])}
