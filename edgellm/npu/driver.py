"""What the native driver of graphs is told: which bundle beside a model, which onnxruntime, which
execution provider. Nothing is run here, and numpy is not loaded before there is a bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceError, FormatError, InvalidArgumentError, UnsupportedError
from . import DESCRIPTION

if TYPE_CHECKING:
    from .bundle import Bundle

BACKEND = "npu"
KV = "F16"  # what graphs keep: pages that round would make a text depend on how it was cut
LIBRARY_VARIABLE = "EDGELLM_ONNXRUNTIME_LIBRARY"
_GENERATION = "-v"  # before it, in the name of a target
_INSTALL = "pip install 'edgellm[npu]'"
_LIBRARIES = ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll")


def settings_for(model: Path, backend: str) -> list[tuple[str, str]]:
    """Name and value of all that `Model.load(npu=)` of the native module takes.

    FormatError: no graphs beside the model, or a broken description. InvalidArgumentError: graphs
    for several targets, and `backend` names none of them. UnsupportedError, DeviceError: a package
    that is missing, or has no library.
    """
    from .bundle import read_description

    folder = bundle_of(model, backend)
    bundle = read_description(folder)
    target = _target_of(backend)
    if not bundle.generations and target and folder != bundles_beside(model).get(target):
        raise _no_graphs(model, target)
    generation = target.partition(_GENERATION)[2] if bundle.generations else ""
    bundle = bundle.for_generation(generation)
    settings = [("bundle", str(folder)), ("library", str(onnxruntime_library()))]
    if generation:
        settings += [("generation", generation)]
    if bundle.target.startswith("qualcomm"):
        from .qnn import PROVIDER, provider_library, provider_options

        settings += [("provider", PROVIDER), ("provider_library", provider_library())]
        options = provider_options(bundle.settings)
        settings += [(f"provider.{name}", value) for name, value in options.items()]
    elif bundle.settings.get("provider", "cpu") != "cpu":
        from .providers import built_in

        name, options = built_in(folder, bundle.settings)
        settings += [("provider", name)]
        settings += [(f"provider.{name}", value) for name, value in options.items()]
    return settings


def bundles_beside(model: Path) -> dict[str, Path]:
    """Of `model.edge` the folders `model.npu-TARGET`, by target."""
    prefix = f"{model.stem}.{BACKEND}-"
    try:
        folders = sorted(model.parent.iterdir())
    except OSError:
        return {}
    return {
        folder.name.removeprefix(prefix): folder
        for folder in folders
        if folder.name.startswith(prefix) and (folder / DESCRIPTION).is_file()
    }


def bundle_of(model: Path, backend: str) -> Path:
    """The folder that `backend` means."""
    found, target = bundles_beside(model), _target_of(backend)
    family = target.partition(_GENERATION)[0]
    for name in (target, family):  # graphs for one generation, or for several
        if name in found:
            return found[name]
    if target or not found:
        raise _no_graphs(model, target or "ort")
    if len(found) > 1:
        raise InvalidArgumentError(
            f"{model}: there are graphs for several targets beside it; name one of "
            f"{', '.join(found)}, such "
            f"as backend='npu:{next(iter(found))}'",
            code="invalid_argument",
        )
    return next(iter(found.values()))


def _target_of(backend: str) -> str:
    return backend.partition(":")[2]


def _no_graphs(model: Path, wanted: str) -> FormatError:
    names = ", ".join(bundles_beside(model)) or "none"
    return FormatError(
        f"{model}: there are no graphs for '{wanted[:40]}' beside it (found: {names}); make "
        f"them: edgellm convert SRC {model.name} --target npu:{wanted[:40]}",
        code="file_not_found",
    )


def onnxruntime_library() -> Path:
    """The library of the installed package, which is not imported, or what the environment
    names."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        return Path(named)
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise UnsupportedError(
            f"graphs are run by onnxruntime, which is not installed: {_INSTALL}",
            code="feature_unsupported",
        )
    folder = Path(spec.origin).parent / "capi"
    found = [path for pattern in _LIBRARIES for path in sorted(folder.glob(pattern))]
    if not found:
        raise DeviceError(
            f"{folder}: this onnxruntime has no library of its own; install another version: "
            f"{_INSTALL}, or name a library in {LIBRARY_VARIABLE}",
            code="device_unavailable",
        )
    return found[0]


@dataclass(frozen=True)
class Placement:
    """Which processor has which part of a model. rows, slots: the shapes of the graphs."""

    target: str
    parts: Mapping[str, str]  # "embedding", "layers", "head": "npu" or "cpu"
    rows: tuple[int, ...]
    slots: tuple[int, ...]
    n_bytes: int
    generations: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {**vars(self), "parts": dict(self.parts)}

    def text(self) -> str:
        """One line."""
        on_npu = [name for name, place in self.parts.items() if place == "npu"]
        on_cpu = [name for name, place in self.parts.items() if place == "cpu"]
        where = f"{', '.join(on_npu)} in graphs"
        where += f"; {', '.join(on_cpu)} on the CPU" if on_cpu else ""
        rows, slots = ", ".join(map(str, self.rows)), ", ".join(map(str, self.slots))
        shapes = f"{rows} rows beside {slots} slots, {self.n_bytes / 1e6:.2f} MB"
        behind = f"behind {max(self.slots)} tokens the CPU, where load(n_ctx=) asks for more"
        which = ", ".join(f"v{one}" for one in self.generations)
        where += f", for each of {which}" if which else ""
        return f"{where}; {shapes}; {behind}"


def placements(model: Path) -> list[Placement]:
    """Of all graphs beside a model. FormatError: a broken description."""
    folders = bundles_beside(model).values()
    if not folders:
        return []
    from .bundle import read_description

    return [placement(read_description(folder)) for folder in folders]


def placement(bundle: Bundle) -> Placement:
    """Parts that no graph has are computed on the CPU, by the kernels and weights of the model."""
    on_npu = [graph for graph in bundle.graphs if graph.placement == BACKEND]
    inputs = {name for graph in on_npu for name in graph.inputs}
    outputs = {name for graph in on_npu for name in graph.outputs}
    return Placement(
        bundle.target,
        {
            "embedding": "npu" if "ids" in inputs else "cpu",
            "layers": "npu",
            "head": "npu" if "logits" in outputs else "cpu",
        },
        tuple(sorted({graph.n_rows for graph in bundle.graphs})),
        tuple(sorted({graph.n_past for graph in bundle.graphs})),
        sum(one.n_bytes for one in bundle.files),
        bundle.generations,
    )
