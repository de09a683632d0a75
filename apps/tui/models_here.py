"""The models of this machine in words: how large, how good by their reports, whether they fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.edgefile import read_header, read_tensor
from edgellm.edgeheader import EdgeHeader
from edgellm.errors import EdgeError
from edgellm.locate import DEMO, find
from edgellm.planner import mib, plan_of
from edgellm.store.store import Store
from edgellm.strict_json import parse_json

_MAX_REPORT_BYTES = 16 << 20


@dataclass(frozen=True)
class Here:
    """A model by the name that opens it. `fits`, `quality`: sentences."""

    name: str
    size: str
    fits: str
    quality: str


def models_here(available_bytes: int) -> Iterator[Here]:
    """The demo and those of the store. What cannot be read says why in place of whether it fits."""
    yield _described(DEMO, find(DEMO).path, available_bytes)
    try:
        store = Store.default()
        references = [(str(name), tag.digest) for name, tag in store.index().references()]
    except (EdgeError, OSError) as error:
        yield Here("the store", "", str(error), "")
        return
    for name, digest in references:
        yield _described(name, store.path(digest), available_bytes)


def _described(name: str, path: Path, available_bytes: int) -> Here:
    try:
        header = read_header(path)
        plan = plan_of(header, available_bytes)
        n_ctx = min(plan.n_ctx_train, plan.n_ctx_fit)
        if n_ctx == 0:
            needs = mib(plan.bytes_at(0))
            fits = f"does not fit: {needs} without a context, {mib(available_bytes)} are free"
        else:
            whole = "" if n_ctx == plan.n_ctx_train else f" of {plan.n_ctx_train:,}"
            fits = f"fits with {n_ctx:,}{whole} tokens of context, {mib(plan.bytes_at(n_ctx))}"
        return Here(name, mib(header.file_bytes), fits, _quality(header))
    except (EdgeError, OSError) as error:
        return Here(name, "", str(error), "")


def _quality(header: EdgeHeader) -> str:
    """What the converter measured. Reports are a stranger's."""
    info = header.tensors.get("report")
    if info is None or info.n_bytes > _MAX_REPORT_BYTES:
        return "no quality report"
    found = parse_json(bytes(read_tensor(header, "report")), f"{header.path}: report")
    measured = _at(_at(found, "quality"), "divergence")
    kl, top1 = _at(measured, "kl"), _at(measured, "top1")
    parts = []
    if _is_number(kl) and _is_number(top1):
        parts.append(f"KL {kl:.4f} nats, same top token {100 * top1:.1f} %")
    errors = [
        (float(one["rel_rms_error"]), str(one.get("name")))
        for one in _at(found, "tensors") or ()
        if _is_number(_at(one, "rel_rms_error"))
    ]
    if errors:
        error, name = max(errors)
        parts.append(f"largest error {error:.4f} ({name})")
    return ", ".join(parts) or "no figures in its report"


def _at(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
