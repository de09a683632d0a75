"""`edgellm fleet key`, `root` and `sign`: who may say what a fleet is. docs/SIGNING.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidArgumentError
from .convert import converters
from .flags import JsonFlag
from .output import print_json, print_text

_TOOLS = "edgellm.converters.fleet.sign"
OutArgument = Annotated[Path, typer.Argument(help="The folder of artefacts.")]


def key(
    path: Annotated[Path, typer.Argument(help="Of the private key; the public one: PATH.pub.")],
    json: JsonFlag = False,
) -> None:
    """Make a key, ECDSA on P-256. Keep the private one off machines that others reach."""
    made = converters(_TOOLS).make_key(path)
    if json:
        print_json("fleet", {"key": str(path), "public": f"{path}.pub", "id": made})
    else:
        print_text(f"{path}, {path}.pub: {made}\n")


def root(
    out: OutArgument,
    root_key: Annotated[list[Path], typer.Option(help="Public, of the role root; repeatable.")],
    index_key: Annotated[list[Path], typer.Option(help="Public, of the role index; repeatable.")],
    model_key: Annotated[list[Path], typer.Option(help="Public, of the role models; repeatable.")],
    sign_with: Annotated[list[Path], typer.Option(help="Private, to sign it with; repeatable.")],
    version: Annotated[int, typer.Option(help="One more than the root before.")] = 1,
    threshold: Annotated[int, typer.Option(help="Of root keys that must sign a root.")] = 1,
    index_threshold: Annotated[int, typer.Option(help="Of keys that must sign an index.")] = 1,
    expires: Annotated[str, typer.Option(help="As 2027-12-31T00:00:00Z; default: never.")] = "",
    json: JsonFlag = False,
) -> None:
    """Say whose signatures count: the first root by hand, each further one signed by the one
    before."""
    roles = {"root": root_key, "index": index_key, "models": model_key}
    thresholds = {"root": threshold, "index": index_threshold}
    tools = converters(_TOOLS)
    path = tools.make_root(out, version, roles, thresholds, sign_with, expires)
    if json:
        print_json("fleet", {"root": str(path), "version": version})
    else:
        print_text(f"{path}\n")


def sign(
    out: Annotated[Path, typer.Argument(help="The folder of artefacts, or one file.")],
    model_key: Annotated[Path, typer.Option(help="Private, of the role models.")],
    index_key: Annotated[
        list[Path] | None, typer.Option(help="Private, of the role index; repeatable.")
    ] = None,
    revoke: Annotated[
        list[str] | None, typer.Option(help="SHA-256 of a file nobody may run; repeatable.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Sign the files of a fleet, then its index; or one file, by a bundle beside it: FILE.sig."""
    tools = converters(_TOOLS)
    if out.is_file():
        if index_key or revoke:
            raise InvalidArgumentError(
                "--index-key and --revoke are for fleets", "invalid_argument"
            )
        what, path = "bundle", tools.sign_beside(out, model_key)
    elif not index_key:
        raise InvalidArgumentError("name a key of the index: --index-key", code="invalid_argument")
    else:
        what, path = "index", tools.sign_fleet(out, model_key, index_key, revoke or ())
    if json:
        print_json("fleet", {what: str(path)})
    else:
        print_text(f"{path}\n")
