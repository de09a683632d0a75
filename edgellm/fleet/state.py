"""What a device knows of a fleet between updates: the trusted root, what was seen, what failed.

One file, replaced whole. Which model runs is not here but in the index of the store, where it
changes in one rename.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..durable import replace_whole
from ..errors import FormatError
from ..strict_json import Json, parse_json

VERSION = 1
MAX_STATE_BYTES = 8 << 20
MAX_KNOWN = 64  # models that were seen here, the last ones
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class Known:
    """Of a model that was here: its release, and what the health check measured. tokens_per_s,
    kl: planned and published; None: not known. measured_tokens_per_s: here. failure: why it may not
    run on this device, "": it may."""

    version: str
    recipe: str
    sha256: str
    tokens_per_s: float | None = None
    kl: float | None = None
    measured_tokens_per_s: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class State:
    """device_id: decides which canaries this device is. root: the envelope of the trusted root,
    None: nothing is signed. sequence: of the newest index seen. seen: the latest time seen. known:
    by the digest of a file's header. revoked: as the newest index says."""

    device_id: str
    root: bytes | None = None
    sequence: int = 0
    seen: str = ""
    known: dict[str, Known] = field(default_factory=dict)
    revoked: tuple[str, ...] = ()

    def with_known(self, digest: str, known: Known) -> State:
        rest = {key: one for key, one in self.known.items() if key != digest}
        kept = dict([*rest.items(), (digest, known)][-MAX_KNOWN:])
        return replace(self, known=kept)

    @property
    def failed(self) -> set[str]:
        """SHA-256 of files that failed here."""
        return {one.sha256 for one in self.known.values() if one.failure}


def read_state(path: Path, device_id: str) -> State:
    """The state in a file; a new one where there is none, with `device_id` or one that is drawn.
    FormatError where it is damaged: what was trusted is not forgotten silently."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STATE_BYTES + 1)
    except FileNotFoundError:
        return State(_checked_id(device_id) if device_id else secrets.token_hex(16))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", code="file_unreadable") from error
    try:
        state = _parsed(parse_json(data, str(path)))
    except (KeyError, TypeError, ValueError, FormatError) as error:
        message = (
            f"{path}: what this device knew of the fleet is damaged ({error}); put an older copy "
            "in its place, or remove it and give the trusted root again"
        )
        raise FormatError(message, code="fleet_state") from None
    return replace(state, device_id=_checked_id(device_id)) if device_id else state


def write_state(path: Path, state: State) -> None:
    """Whole or not at all, also when the power fails."""
    root = None if state.root is None else base64.b64encode(state.root).decode("ascii")
    document = {"version": VERSION, **asdict(state), "root": root}
    temporary = path.with_name(f".{path.name}.tmp")  # one writer at a time
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, json.dumps(document, indent=1).encode(), temporary)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error}", "file_write_failed") from error


def _parsed(value: Json) -> State:
    table: Any = value
    if table.pop("version") != VERSION:
        raise ValueError("another version of edgellm wrote it")
    root = table.pop("root")
    known = {key: Known(**one) for key, one in table.pop("known").items()}
    revoked = tuple(str(one) for one in table.pop("revoked", ()))
    signed = None if root is None else base64.b64decode(root, validate=True)
    state = State(root=signed, known=known, revoked=revoked, **table)
    if type(state.sequence) is not int or not isinstance(state.seen, str):
        raise TypeError("sequence or seen is of another type")
    _checked_id(state.device_id)
    return state


def _checked_id(text: str) -> str:
    if not isinstance(text, str) or not _ID.fullmatch(text):
        message = f"{str(text)[:80]!r} is no id of a device: 1 to 128 of A-Z a-z 0-9 . _ -"
        raise FormatError(message, code="fleet_state")
    return text
