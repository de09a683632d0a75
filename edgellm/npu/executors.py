"""Which package runs a target's graphs. Adding a target's executor means adding a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import UnsupportedError
from .bundle import GENERATION, Bundle
from .facts import HOST
from .session import Runner

Open = Callable[[Path, Mapping[str, str], int], Runner]  # entry, settings of the bundle, threads


def _host(path: Path, _settings: Mapping[str, str], threads: int) -> Runner:
    from .ort import OrtRunner

    return OrtRunner(path, threads=threads)


def _ort(path: Path, settings: Mapping[str, str], threads: int) -> Runner:
    from .providers import open_ort

    return open_ort(path, settings, threads)


def _qualcomm(path: Path, settings: Mapping[str, str], threads: int) -> Runner:
    from .qnn import open_qnn

    return open_qnn(path, settings, threads)


def _intel(path: Path, settings: Mapping[str, str], threads: int) -> Runner:
    from .intel import OpenVinoRunner

    return OpenVinoRunner(path, settings.get("device", "NPU"), threads)


_EXECUTORS: dict[str, Open] = {"ort": _ort, "qualcomm": _qualcomm, "intel": _intel}


def runners_of(
    folder: Path,
    bundle: Bundle,
    threads: int = 0,
    settings: Mapping[str, str] | None = None,
) -> dict[str, Runner]:
    """An executor of every graph. settings: in place of the bundle's own. UnsupportedError: nothing
    here runs the target."""
    family = bundle.target.partition("-")[0]
    found = _EXECUTORS.get(family)
    if found is None:
        raise UnsupportedError(
            f"{folder}: nothing on this machine runs graphs for '{bundle.target}' (known: "
            f"{', '.join(_EXECUTORS)})",
            code="feature_unsupported",
        )
    chosen = {**bundle.settings, **(settings or {})}
    bundle = bundle.for_generation(chosen.get(GENERATION, ""))
    return {
        graph.name: (_host if graph.placement == HOST else found)(
            folder / bundle.entry[graph.name], chosen, threads
        )
        for graph in bundle.graphs
    }
