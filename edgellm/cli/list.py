"""`edgellm list`: the models of the store, their names, and the disk they take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ..planner import mib
from ..sanitize import visible_line
from ..store.store import Store
from .flags import JsonFlag
from .output import note, print_json, print_text


def command(json: JsonFlag = False) -> None:
    """Bytes that several names share are counted once in the total."""
    store = Store.default()
    data = described(store)
    if json:
        print_json("list", data)
        return
    if not data["names"]:
        print_text(f"no models in {store.directory}; edgellm pull OWNER/NAME gets one\n")
    else:
        rows = [
            (one["reference"], mib(one["n_bytes"]), one["digest"][:12], one["set"][:10])
            for one in data["names"]
        ]
        print_text(table(("NAME", "SIZE", "DIGEST", "SINCE"), rows))
        for alias, target in data["aliases"].items():
            print_text(f"{alias} -> {target}\n")
        models = "1 model" if data["n_models"] == 1 else f"{data['n_models']} models"
        print_text(f"\n{models}, {mib(data['n_bytes'])} in {store.directory}\n")
    if data["unfinished_bytes"]:
        size = mib(data["unfinished_bytes"])
        note(f"note: {size} of unfinished downloads; edgellm rm --unfinished deletes them")


def described(store: Store) -> dict[str, Any]:
    """Everything `--json` prints."""
    index = store.index()
    return {
        "directory": str(store.directory),
        "names": [
            {
                "reference": str(reference),
                "digest": tag.digest,
                "n_bytes": index.models[tag.digest].n_bytes,
                "set": utc(tag.set_ns),
                "origins": list(index.models[tag.digest].origins),
            }
            for reference, tag in index.references()
        ],
        "aliases": dict(sorted(index.aliases.items())),
        "n_models": len(index.models),
        "n_bytes": sum(model.n_bytes for model in index.models.values()),
        "unfinished_bytes": sum(store.unfinished().values()),
    }


def utc(time_ns: int) -> str:
    """A time as 2026-01-31T12:00:00Z; of an index that says nonsense, the text of its number."""
    try:
        return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(time_ns)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    lines = [[visible_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )
