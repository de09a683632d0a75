"""`edgellm bench --write-profile`: what this machine can do, for `edgellm plan --device`."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..durable import write_whole
from ..errors import FormatError, InvalidArgumentError
from ..machine_profile import profile_of
from ..profiles.writer import profile_toml
from ..strict_json import parse_json
from .allocate import refuse_others
from .output import SCHEMA_VERSION, note

_MAX_REPORT_BYTES = 1 << 20


def check_wishes(path: Path, others: Mapping[str, object]) -> None:
    """Before minutes of measuring."""
    refuse_others(others, "not with --write-profile")
    if path.suffix != ".toml":
        message = f"--write-profile is {str(path)!r:.200}; give a name that ends in .toml"
        raise InvalidArgumentError(message, code="invalid_argument")
    if not path.absolute().parent.is_dir():
        message = f"--write-profile: {path.absolute().parent} is no directory; make it first"
        raise FormatError(message, code="file_not_found")


def write(path: Path, data: Mapping[str, Any], others: Sequence[Path]) -> None:
    """The profile, and beside it as .json the reports that it rests on."""
    reports = [data, *(_read(other) for other in others)]
    title = f"{platform.machine()}, {data['threads']} threads, as measured"
    report = path.with_suffix(".json")
    profile = profile_of(reports, path.stem, title, report.name)
    document = {"schema_version": SCHEMA_VERSION, "command": "bench", "reports": reports}
    write_whole(report, json.dumps(document, indent=2) + "\n")
    write_whole(path, profile_toml(profile))
    note(f"note: {path} rests on {report}; edgellm plan MODEL --device {path}")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_REPORT_BYTES)
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise FormatError(message, code="file_unreadable") from None
    document = parse_json(text, str(path))
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, dict):
        message = f"{path} is no report of edgellm bench --json"
        raise FormatError(message, code="json_type")
    return data
