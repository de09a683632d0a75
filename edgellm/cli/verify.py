"""`edgellm verify`: hash the whole file and compare with the hashes inside."""

from __future__ import annotations

from typing import Annotated

import typer

from ..locate import explained, resolve
from ..signature import signed_file, signers_of
from .defaults import RequireSignatureOption
from .flags import JsonFlag, ThreadsOption
from .output import print_json, print_text


def command(
    file: Annotated[str, typer.Argument(help="A .edge file, a name (edgellm list) or demo.")],
    threads: ThreadsOption = None,
    require_signature: RequireSignatureOption = None,
    json: JsonFlag = False,
) -> None:
    """Exit code 0: every byte is what was written. 4: some byte is not. 3: no .edge file."""
    from .. import _native

    path = resolve(file)
    signers = signers_of(require_signature)
    if signers is not None:
        with signed_file(path, signers):
            pass
    with explained(path):
        result = _native.verify_file(path, threads or 0)
    if json:
        data = {"path": str(path), "ok": True, "signed": signers is not None, **result}
        print_json("verify", data)
        return
    seconds = max(result["verify_ms"], 1e-3) / 1e3
    rate_gb_per_s = result["file_bytes"] / seconds / 1e9
    print_text(
        f"ok: {result['file_bytes']} bytes in {result['n_leaves']} leaves, "
        f"{rate_gb_per_s:.2f} GB/s\nroot {result['root']}\n"
        + ("" if signers is None else f"signed as {require_signature} asks for\n")
    )
