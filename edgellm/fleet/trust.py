"""Who may say what a fleet is: roles as in The Update Framework (TUF), kept small.

A root document names keys and roles: `root` signs the next root, `index` the fleet's index,
`models` the files. A device begins with one root that it was given by hand; each further one needs
the threshold of the one before and of itself, and the next number. Versions never go down; what has
expired is refused where the clock can be trusted. https://theupdateframework.github.io
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from ..errors import FormatError, IntegrityError
from ..strict_json import Json, parse_json
from .index import FleetIndex, parse_index
from .signed import key_id, parse_envelope, verify

ROOT_TYPE = "application/vnd.edgellm.root.v1+json"
INDEX_TYPE = "application/vnd.edgellm.fleet-index.v1+json"
FORMAT = "edgellm-root-1"
ROLES = ("root", "index", "models")
MAX_KEYS = 64
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
# A clock that shows less was never set.
_EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Role:
    """keys: ids, of which `threshold` must have signed."""

    keys: tuple[str, ...]
    threshold: int


@dataclass(frozen=True)
class Root:
    """keys: PEM by id. expires: a time of UTC, "": never."""

    version: int
    expires: str
    keys: Mapping[str, str]
    roles: Mapping[str, Role]

    def keys_of(self, role: str) -> dict[str, str]:
        return {name: self.keys[name] for name in self.roles[role].keys}


def root_bytes(root: Root) -> bytes:
    """What is signed of a root."""
    return json.dumps({"format": FORMAT, **asdict(root)}, sort_keys=True, indent=1).encode("ascii")


def parse_root(data: bytes, where: str) -> Root:
    """FormatError says what is wrong with it."""
    value = parse_json(data, where)
    keys = {"format", "version", "expires", "keys", "roles"}
    if not isinstance(value, dict) or value.keys() != keys or value["format"] != FORMAT:
        raise _bad(where, f"no root document of {FORMAT}")
    version, expires = value["version"], value["expires"]
    if type(version) is not int or not 1 <= version < 1 << 31:
        raise _bad(where, "version must be 1 to 2147483647")
    if not isinstance(expires, str) or (expires and not _TIME.fullmatch(expires)):
        raise _bad(where, "expires is no time of UTC")
    pems, roles = value["keys"], value["roles"]
    if not isinstance(pems, dict) or not 1 <= len(pems) <= MAX_KEYS:
        raise _bad(where, f"must have 1 to {MAX_KEYS} keys")
    known: dict[str, str] = {}
    for name, pem in pems.items():
        if not isinstance(pem, str) or key_id(pem) != name:
            raise _bad(where, f"key {name[:80]!r} is not named by its digest")
        known[name] = pem
    if not isinstance(roles, dict) or roles.keys() != set(ROLES):
        raise _bad(where, f"must have the roles {', '.join(ROLES)}")
    read = {one: _role(roles[one], known, where) for one in ROLES}
    if read["models"].threshold != 1:
        raise _bad(where, "models has a threshold of 1: a bundle has one signature")
    return Root(version, expires, known, read)


def first_root(data: bytes, where: str, now: datetime | None) -> Root:
    """A root that was given by hand; it must still be signed as it says itself."""
    return _rooted(data, None, where, now)


def next_root(data: bytes, trusted: Root, where: str, now: datetime | None) -> Root:
    """The root after `trusted`. IntegrityError where it is not signed by both, or not the next."""
    return _rooted(data, trusted, where, now)


def trusted_index(
    data: bytes, root: Root, least_sequence: int, where: str, now: datetime | None
) -> FleetIndex:
    """A signed index. IntegrityError where it is not signed, has expired, or is older than one that
    was seen before. now: None where the clock cannot be trusted: then nothing expires."""
    _check_time(root.expires, f"{where}: the root", now)
    role = root.roles["index"]
    envelope = parse_envelope(data, where)
    payload = verify(envelope, INDEX_TYPE, root.keys_of("index"), role.threshold, where)
    index = parse_index(payload, where)
    _check_time(index.expires, where, now)
    check_sequence(index, least_sequence, where)
    return index


def check_sequence(index: FleetIndex, least: int, where: str) -> None:
    """IntegrityError for an index older than one that was seen before."""
    if index.sequence < least:
        message = f"{where}: sequence {index.sequence}, but {least} was seen before; not taken"
        raise IntegrityError(message, code="fleet_rolled_back")


def clock_now(last_seen: str = "") -> datetime | None:
    """The time, or None where the clock cannot be right: it was never set, or goes back behind
    what was seen before."""
    now = datetime.now(UTC)
    earliest = max(_EARLIEST, parsed_time(last_seen)) if last_seen else _EARLIEST
    return now if now >= earliest else None


def parsed_time(text: str) -> datetime:
    """Of a text that is such a time."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _rooted(data: bytes, trusted: Root | None, where: str, now: datetime | None) -> Root:
    envelope = parse_envelope(data, where)
    if trusted is not None:
        role = trusted.roles["root"]
        verify(envelope, ROOT_TYPE, trusted.keys_of("root"), role.threshold, where)
    root = parse_root(envelope.payload, where)
    verify(envelope, ROOT_TYPE, root.keys_of("root"), root.roles["root"].threshold, where)
    if trusted is not None and root.version != trusted.version + 1:
        message = f"{where}: root {root.version} does not follow root {trusted.version}; not taken"
        raise IntegrityError(message, code="fleet_rolled_back")
    _check_time(root.expires, where, now)
    return root


def _role(value: Json, keys: Mapping[str, str], where: str) -> Role:
    names = value.get("keys") if isinstance(value, dict) else None
    threshold = value.get("threshold") if isinstance(value, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _bad(where, "a role must list its keys")
    listed = tuple(str(name) for name in names)
    is_right = type(threshold) is int and 1 <= threshold <= len(set(listed))
    if not is_right or not set(listed) <= keys.keys() or len(set(listed)) != len(listed):
        raise _bad(where, "a role's threshold is not that of keys that are there")
    assert isinstance(threshold, int)
    return Role(listed, threshold)


def _check_time(expires: str, where: str, now: datetime | None) -> None:
    if not expires or now is None:
        return
    try:
        end = parsed_time(expires)
    except ValueError:
        raise _bad(where, f"{expires} is no time") from None
    if now >= end:
        message = f"{where}: expired at {expires}; get a newer one, or set the clock"
        raise IntegrityError(message, code="fleet_expired")


def _bad(where: str, what: str) -> FormatError:
    return FormatError(f"{where}: {what}", code="signature_format")
