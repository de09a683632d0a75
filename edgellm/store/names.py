"""Names of models: what may be one, what a tag means, and which version is the newest.

Pure functions of text. No name ever becomes a path: files are named by digests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import InvalidArgumentError

LATEST = "latest"
BUILT_IN = "demo"
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,127}")
_FILE_SUFFIXES = (".edge", ".gguf", ".safetensors", ".bin", ".json")
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_VERSION = re.compile(
    rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_RANGE = re.compile(rf"v?{_NUMBER}(?:\.{_NUMBER})?")

_VersionKey = tuple[tuple[int, ...], bool, tuple[tuple[bool, int, str], ...]]


@dataclass(frozen=True)
class Reference:
    """A name, with what stood after its colon."""

    name: str
    tag: str | None = None

    def __str__(self) -> str:
        return self.name if self.tag is None else f"{self.name}:{self.tag}"


@dataclass(frozen=True)
class HubName:
    """A model of the hub, at a branch, tag or commit."""

    name: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"

    @property
    def reference(self) -> Reference:
        """Its name in the store; a revision may have slashes, a tag has none."""
        tag = self.revision.replace("/", "-")
        return Reference(self.name, f"rev-{tag}" if tag == LATEST else tag)


def parse_reference(text: str) -> Reference:
    """NAME or NAME:TAG; InvalidArgumentError says what names look like."""
    found = as_reference(text)
    if found is None:
        raise InvalidArgumentError(
            f"{text[:200]!r} is no name of a model: write NAME, OWNER/NAME or NAME:TAG with "
            "letters, digits, '.', '_' and '-', and without the suffix of a file",
            code="store_name",
        )
    return found


def as_reference(text: str) -> Reference | None:
    """The same, or None."""
    name, colon, tag = text.partition(":")
    if not _is_name(name) or (colon and not _TAG.fullmatch(tag)):
        return None
    return Reference(name, tag if colon else None)


def parse_hub_name(text: str) -> HubName:
    """OWNER/NAME or OWNER/NAME@REVISION."""
    found = as_hub_name(text)
    if found is None:
        raise InvalidArgumentError(
            f"{text[:200]!r} is no model of the hub: write OWNER/NAME or OWNER/NAME@REVISION",
            code="store_name",
        )
    return found


def as_hub_name(text: str) -> HubName | None:
    """The same, or None."""
    name, at, revision = text.partition("@")
    if not _is_name(name) or "--" in name:  # which the cache's folders use for the slash
        return None
    if not at:
        return HubName(name)
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        return None
    return None if revision.endswith(("/", ".")) else HubName(name, revision)


def name_from(text: str) -> str:
    """A name for a file or folder that somebody called `text`."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:64]
    while ".." in kept:
        kept = kept.replace("..", ".")
    if _is_name(kept) and kept != BUILT_IN:
        return kept
    return f"model-{kept.replace('.', '-')}".rstrip("-")  # no suffix of a file is left


def is_version(tag: str) -> bool:
    """Whether a tag is a semantic version, as 1.2.0 and v1.2.0-rc.1 are."""
    return _VERSION.fullmatch(tag) is not None


def choose_tag(wanted: str | None, tags: Iterable[str], newest: str | None) -> str | None:
    """Which of `tags` is meant; None if none.

    wanted: a tag; "1" or "1.2": the highest version that begins so; None or "latest": the highest
    version, or `newest` where nothing has one. Versions before a release (1.0.0-rc.1) are found
    only by their whole name.
    """
    known = set(tags)
    if wanted in known:
        return wanted
    versions = sorted((key, tag) for tag in known if (key := _version_key(tag)) and key[1])
    if wanted is None or wanted == LATEST:
        return versions[-1][1] if versions else newest
    match = _RANGE.fullmatch(wanted)
    if match is None:
        return None
    begin = tuple(int(part) for part in match.groups() if part is not None)
    fitting = [tag for key, tag in versions if key[0][: len(begin)] == begin]
    return fitting[-1] if fitting else None


def _version_key(tag: str) -> _VersionKey | None:
    """Sorts as semver.org section 11 says; its middle is whether it is a release."""
    match = _VERSION.fullmatch(tag)
    if match is None:
        return None
    *numbers, before = match.groups()
    parts = (before or "").split(".") if before else []
    return (
        tuple(map(int, numbers)),
        before is None,
        tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts),
    )


def _is_name(text: str) -> bool:
    return (
        _NAME.fullmatch(text) is not None
        and ".." not in text
        and not text.endswith(".")
        and not text.lower().endswith(_FILE_SUFFIXES)
    )
