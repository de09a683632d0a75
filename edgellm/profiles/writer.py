"""`HardwareProfile` -> TOML that `parse_profile()` reads as the same one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from .schema import Figure, HardwareProfile


def profile_toml(profile: HardwareProfile) -> str:
    """What is unknown is left out."""
    lines = [f"{key} = {_text(getattr(profile, key))}" for key in ("name", "title", "kind")]
    for name in ("cpu", "memory", "storage", "calibration", "defaults"):
        lines += _table(f"[{name}]", getattr(profile, name))
    for accelerator in profile.accelerators:
        lines += _table("[[accelerators]]", accelerator)
    return "\n".join(lines) + "\n"


def _table(head: str, part: Any) -> Iterator[str]:
    known = {one.name: getattr(part, one.name) for one in fields(part)}
    lines = [f"{key} = {_value(value)}" for key, value in known.items() if value is not None]
    if lines:
        yield from ("", head, *lines)


def _value(value: Any) -> str:
    if isinstance(value, Figure):
        return f"{{ {', '.join(_figure(value))} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(_text(one) for one in value)}]"
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value)


def _figure(figure: Figure[Any]) -> Iterator[str]:
    for one in fields(figure):
        value = getattr(figure, one.name)
        if value is not None:
            yield f"{one.name} = {_value(value)}"


def _text(value: str) -> str:
    """JSON's strings are TOML's, but for characters that no printable text has."""
    return json.dumps(value, ensure_ascii=False)
