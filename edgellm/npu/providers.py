"""Execution providers that are built into some packages of onnxruntime, and what they are told.

A bundle names its provider in its settings, `provider`, with options of it as `provider.NAME`; a
hardware profile says which of them a device has. None of these has been run: nothing but the
options and the refusals is known to be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError, UnsupportedError
from ..profiles.schema import HardwareProfile
from .ort import OrtRunner, onnxruntime

PROVIDER = "provider"
_OPTION = PROVIDER + "."
_CACHE = "model-cache"  # beside the graphs: what a provider compiled them to


@dataclass(frozen=True)
class Provider:
    """name: as onnxruntime has it. options: that all devices share; by_kind: more of them, by the
    kind of device. cache: the option that names a folder for what was compiled. where: the
    packages that have it, for messages."""

    name: str
    options: Mapping[str, str]
    by_kind: Mapping[str, Mapping[str, str]]
    cache: str
    where: str


PROVIDERS = {
    "coreml": Provider(
        "CoreMLExecutionProvider",
        {
            "ModelFormat": "MLProgram",
            "MLComputeUnits": "CPUAndNeuralEngine",
            "RequireStaticInputShapes": "1",
            "EnableOnSubgraphs": "0",
        },
        # Compiled once and run for long: worth a slower compilation where there is power for it.
        {
            "laptop": {"SpecializationStrategy": "FastPrediction"},
            "desktop": {"SpecializationStrategy": "FastPrediction"},
        },
        "ModelCacheDirectory",
        "onnxruntime for macOS and iOS",
    ),
    "vitisai": Provider(
        "VitisAIExecutionProvider",
        {"enable_cache_file_io_in_mem": "0"},
        {},
        "cache_dir",
        "AMD's Ryzen AI software",
    ),
}


def device_settings(profile: HardwareProfile) -> dict[str, str]:
    """What a bundle of `npu:ort` is opened with on a class of devices: the provider of its NPU.
    UnsupportedError: it has none that onnxruntime's packages hold; then the bundle is to be made
    for the vendor's own target."""
    for accelerator in profile.accelerators:
        provider = PROVIDERS.get(accelerator.backend)
        if accelerator.kind == "npu" and provider is not None:
            options = {**provider.options, **provider.by_kind.get(profile.kind, {})}
            chosen = {_OPTION + key: value for key, value in options.items()}
            return {PROVIDER: accelerator.backend, **chosen}
    raise UnsupportedError(
        f"'{profile.name}' has no NPU behind an execution provider of onnxruntime (known: "
        f"{', '.join(PROVIDERS)}); convert for its vendor's target, or run on the CPU provider",
        code="feature_unsupported",
    )


def default_settings(name: str) -> dict[str, str]:
    """Of a provider, for a device of no kind that is known."""
    options = PROVIDERS[name].options
    return {PROVIDER: name, **{_OPTION + key: value for key, value in options.items()}}


def open_ort(path: Path, settings: Mapping[str, str], threads: int = 0) -> OrtRunner:
    """A graph on the provider that the settings name; without one, on the CPU provider.

    UnsupportedError: a provider that is not known. DeviceError: this onnxruntime does not have it,
    or it does not take the whole graph.
    """
    name = settings.get(PROVIDER, "cpu")
    if name == "cpu":
        return OrtRunner(path, threads=threads)
    provider = _known(name)
    there = onnxruntime().get_available_providers()
    if provider.name not in there:
        raise DeviceError(
            f"{path}: this onnxruntime has no {provider.name} (it has: {', '.join(there)}); it is "
            f"in {provider.where}. Nothing runs on the CPU instead unless settings="
            f'{{"{PROVIDER}": "cpu"}} says so',
            code="device_unavailable",
        )
    return OrtRunner(path, provider=provider.name, options=provider_options(path, settings))


def provider_options(path: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What onnxruntime is told for one graph."""
    provider = PROVIDERS[settings[PROVIDER]]
    given = {
        key.removeprefix(_OPTION): value
        for key, value in settings.items()
        if key.startswith(_OPTION)
    }
    return {provider.cache: str(path.parent / _CACHE), **given}


def built_in(folder: Path, settings: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Name, as onnxruntime's C interface has it, and options of the provider that a bundle's
    settings name. UnsupportedError: it is not known."""
    name = _known(settings[PROVIDER]).name.removesuffix("ExecutionProvider")
    return name, provider_options(folder / "graph", settings)


def _known(name: str) -> Provider:
    found = PROVIDERS.get(name)
    if found is None:
        raise UnsupportedError(
            f"provider '{name[:40]}' is not known (known: cpu, {', '.join(PROVIDERS)})",
            code="feature_unsupported",
        )
    return found
