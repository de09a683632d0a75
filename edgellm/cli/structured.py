"""The flags that give an answer its shape: --json-object, --schema, --regex and --grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InvalidArgumentError
from ..response_format import MAX_BYTES, parse_schema
from ..small_files import read_small_text

_PANEL = "Shape of the answer (needs edgellm[grammar])"
JsonObject = Annotated[
    bool,
    typer.Option("--json-object", help="A JSON object, of any kind.", rich_help_panel=_PANEL),
]
SchemaFile = Annotated[
    Path | None,
    typer.Option("--schema", help="JSON of the schema in this file.", rich_help_panel=_PANEL),
]
Regex = Annotated[
    str | None,
    typer.Option("--regex", help="Text that matches, all of it.", rich_help_panel=_PANEL),
]
GrammarFile = Annotated[
    Path | None,
    typer.Option(
        "--grammar", help="Text of the Lark grammar in this file.", rich_help_panel=_PANEL
    ),
]


def response_format(
    json_object: bool, schema: Path | None, regex: str | None, grammar: Path | None
) -> dict[str, Any] | None:
    """The argument of that name; None without a flag."""
    formats: list[dict[str, Any]] = []
    if json_object:
        formats.append({"type": "json_object"})
    if schema is not None:
        value = parse_schema(read_small_text(schema, MAX_BYTES), str(schema))
        formats.append({"type": "json_schema", "schema": value})
    if regex is not None:
        formats.append({"type": "regex", "regex": regex})
    if grammar is not None:
        formats.append({"type": "grammar", "grammar": read_small_text(grammar, MAX_BYTES)})
    if len(formats) > 1:
        message = "--json-object, --schema, --regex and --grammar exclude each other; give one"
        raise InvalidArgumentError(message, code="invalid_argument")
    return formats[0] if formats else None
