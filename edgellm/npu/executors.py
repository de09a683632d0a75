"""Which package runs a target's graphs. Adding a target's executor means adding a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import UnsupportedError
from .bundle import Bundle
from .session import Runner

Open = Callable[[Path, Mapping[str, str], int], Runner]  # entry, settings of the bundle, threads


def _ort(path: Path, _settings: Mapping[str, str], threads: int) -> Runner:
    from .ort import OrtRunner

    return OrtRunner(path, threads=threads)


_EXECUTORS: dict[str, Open] = {"ort": _ort}


def runners_of(folder: Path, bundle: Bundle, threads: int = 0) -> dict[str, Runner]:
    """An executor of every graph. UnsupportedError: nothing here runs the target."""
    family = bundle.target.partition("-")[0]
    found = _EXECUTORS.get(family)
    if found is None:
        raise UnsupportedError(
            f"{folder}: nothing on this machine runs graphs for '{bundle.target}' (known: "
            f"{', '.join(_EXECUTORS)})",
            code="feature_unsupported",
        )
    return {
        graph.name: found(folder / bundle.entry[graph.name], bundle.settings, threads)
        for graph in bundle.graphs
    }
