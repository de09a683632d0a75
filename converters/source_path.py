"""The directory that `convert` is given: what to say when the path is something else.

Reads no file; knows names and suffixes only.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from edgellm.errors import FormatError

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def existing_directory(directory: Path) -> Path:
    """`directory`, if it is one; else FormatError with what to give instead."""
    if directory.is_dir():
        return directory
    if directory.exists():
        hint = _what_to_give_instead(directory)
        raise FormatError(f"{directory}: not a checkpoint directory{hint}", code="file_unreadable")
    raise FormatError(f"{directory}: no such directory{_nearest(directory)}", code="file_not_found")


def _what_to_give_instead(path: Path) -> str:
    if path.suffix == ".edge":
        return "; it is converted already: edgellm run FILE PROMPT"
    if path.suffix == ".gguf":
        return "; this takes the Hugging Face directory that the GGUF file was made from"
    if path.suffix in (".safetensors", ".json", *PICKLE_SUFFIXES):
        return f"; give its directory, {path.parent}"
    return "; give a directory with config.json and *.safetensors, or a GGUF file"


def _nearest(path: Path) -> str:
    """ "; did you mean ..." with the most similar names in the deepest folder that exists."""
    parent = path.parent
    if not parent.is_dir():
        return f" (nor is there {parent})"
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(str(parent / name) for name in close)}?" if close else ""
