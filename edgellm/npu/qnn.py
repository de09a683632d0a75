"""Runs and compiles graphs for Qualcomm's HTP: its compiler, its simulator on x86-64, or the chip.

onnxruntime is never allowed to run a part on the CPU instead: on a machine without the chip a graph
would be right and its speed a lie. Needs onnxruntime-qnn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import DeviceError, UnsupportedError
from .ort import OrtRunner, onnxruntime

PROVIDER = "QNNExecutionProvider"
# Chips by generation of the HTP, as the compiler numbers them: without one it refuses half
# precision, and has no memory for integers on v73.
SOC_MODELS = {"73": "43", "75": "57", "79": "69", "81": "87"}


def open_qnn(path: Path, settings: Mapping[str, str], _threads: int = 0) -> OrtRunner:
    """A graph, or a compiled one. settings: htp_arch, and half = "1" for half precision.
    DeviceError: a part of it would not be on the HTP."""
    return _session(path, settings, {})


@dataclass(frozen=True)
class Compiled:
    """entry: ONNX around a context binary; files: both. runner: what compiled it, where that is
    the only one that runs it on this machine."""

    entry: Path
    files: tuple[Path, ...]
    runner: OrtRunner | None = None


def compile_qnn(
    sources: Mapping[str, Path], folder: Path, settings: Mapping[str, str], *, share: bool = False
) -> dict[str, Compiled]:
    """Compiles graphs offline into `NAME.onnx` of the folder each. share: into one context binary
    whose graphs have their weights in common; the simulator refuses to load such a binary, a chip
    does not, so what compiled it is kept to run it.

    DeviceError: what the compiler says.
    """
    if not share:
        return {name: _compile_alone(path, folder, settings) for name, path in sources.items()}
    before = set(folder.iterdir())
    runners: dict[str, OrtRunner] = {}
    for name, path in sources.items():
        entries = {**_context_entries(folder / f"{name}.onnx"), "ep.share_ep_contexts": "1"}
        if len(runners) == len(sources) - 1:
            entries["ep.stop_share_ep_contexts"] = "1"
        runners[name] = _session(path, settings, entries)
    made = set(folder.iterdir()) - before
    binaries = sorted(one for one in made if one.suffix != ".onnx")
    return {
        name: Compiled(*_checked(folder / f"{name}.onnx", made, binaries), runner)
        for name, runner in runners.items()
    }


def _compile_alone(path: Path, folder: Path, settings: Mapping[str, str]) -> Compiled:
    out, before = folder / path.name, set(folder.iterdir())
    _session(path, settings, _context_entries(out))
    made = set(folder.iterdir()) - before
    return Compiled(*_checked(out, made, sorted(made - {out})))


def _context_entries(out: Path) -> dict[str, str]:
    return {
        "ep.context_enable": "1",
        "ep.context_embed_mode": "0",
        "ep.context_file_path": str(out),
    }


def _checked(
    out: Path, made: Collection[Path], binaries: Sequence[Path]
) -> tuple[Path, tuple[Path, ...]]:
    if out not in made or not binaries:
        raise DeviceError(f"{out}: the HTP compiler gave no context binary", code="device_failed")
    return out, (out, *binaries)


def _session(path: Path, settings: Mapping[str, str], entries: Mapping[str, str]) -> OrtRunner:
    return OrtRunner(path, devices=_devices(), options=provider_options(settings), entries=entries)


def provider_options(settings: Mapping[str, str]) -> dict[str, str]:
    """Of the provider, for a bundle's settings. UnsupportedError: an unknown generation."""
    arch = settings.get("htp_arch", "")
    if arch not in SOC_MODELS:
        known = ", ".join(SOC_MODELS)
        raise UnsupportedError(
            f"HTP generation '{arch[:20]}' is not known (known: {known})",
            code="feature_unsupported",
        )
    return {
        "backend_path": _package().get_qnn_htp_path(),
        "htp_arch": arch,
        "soc_model": SOC_MODELS[arch],
        "enable_htp_fp16_precision": settings.get("half", "0"),
    }


def provider_library() -> str:
    """The library that onnxruntime registers. UnsupportedError: it is not installed."""
    path: str = _package().get_library_path()
    return path


@cache
def _devices() -> tuple[Any, ...]:
    """The provider's devices; it is registered once in a process."""
    ort = onnxruntime()
    ort.register_execution_provider_library(PROVIDER, provider_library())
    found = tuple(device for device in ort.get_ep_devices() if device.ep_name == PROVIDER)
    if not found:
        raise DeviceError(
            f"onnxruntime has no device for {PROVIDER}: its library does not fit this machine",
            code="device_unavailable",
        )
    return found


def _package() -> Any:
    try:
        import onnxruntime_qnn as package
    except ImportError as error:
        raise UnsupportedError(
            f"Qualcomm's compiler is in onnxruntime-qnn ({error}): "
            "pip install 'edgellm[npu,npu-qualcomm]'",
            code="feature_unsupported",
        ) from error
    return package
