"""What the server says of the machine: read bandwidth, GPUs through NVML, work of experts.

Nothing of it is needed to serve: what cannot be known is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ..edgefile import read_header
from ..errors import EdgeError
from ..results import Stats
from ..work import work_of
from .metrics import Sample, label

Gauge = tuple[str, str, list[Sample]]
_LEAST_STEPS = 4  # of a text whose speed says something


def weight_bytes(path: Path) -> int:
    """Of the file at `path`, what a step of one token reads; 0 where that cannot be known."""
    try:
        return work_of(read_header(path)).weight_bytes
    except EdgeError:  # a model that is no file
        return 0


def read_speed(n_bytes: int, stats: Stats) -> float | None:
    """Bytes of weights per second of a text that ran alone, each step reading `n_bytes`: accepted
    drafts and forced tokens take none of their own. None: too short a text."""
    n_after_first = stats.generated_tokens - 1
    n_steps = n_after_first - stats.accepted_tokens - stats.forced_tokens
    if n_steps < _LEAST_STEPS or stats.tokens_per_s <= 0:
        return None
    return n_bytes * stats.tokens_per_s * n_steps / n_after_first


def measured_peak() -> float:
    """Bytes per second of plain reads of 256 MiB; takes a second."""
    from .. import _native

    return _native.measure_read_bandwidth()


def expert_gauges(loads: Mapping[str, Mapping[int, list[int]]]) -> list[Gauge]:
    """By model: tokens that went to each expert since it was loaded, by layer."""
    shares: list[Sample] = []
    idle: list[Sample] = []
    for model, layers in loads.items():
        for layer, counts in layers.items():
            names = label(model=model, layer=str(layer))
            shares.append((names, max(counts) / max(1, sum(counts))))
            idle.append((names, counts.count(0)))
    if not shares:
        return []
    return [
        ("edgellm_busiest_expert_share", "Of the tokens of a layer.", shares),
        ("edgellm_idle_experts", "Of a layer, that no token went to.", idle),
    ]


class Gpus:
    """NVIDIA's, through the package nvidia-ml-py, where it and a driver are there."""

    def __init__(self) -> None:
        self._nvml = _nvml()

    def gauges(self) -> list[Gauge]:
        """Use of each one now, by any program; nothing where it cannot be asked."""
        if self._nvml is None:
            return []
        busy: list[Sample] = []
        memory: list[Sample] = []
        try:
            for at in range(self._nvml.nvmlDeviceGetCount()):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(at)
                use = self._nvml.nvmlDeviceGetUtilizationRates(handle)
                room = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                busy.append((label(gpu=str(at)), use.gpu / 100))
                memory.append((label(gpu=str(at), kind="used"), room.used))
                memory.append((label(gpu=str(at), kind="total"), room.total))
        except self._nvml.NVMLError:  # a GPU that went away
            return []
        return [
            ("edgellm_gpu_busy_share", "Of the last moment, by any program.", busy),
            ("edgellm_gpu_memory_bytes", "Of a GPU, by any program.", memory),
        ]


def _nvml() -> ModuleType | None:
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver
        return None
    return pynvml  # type: ignore[no-any-return]
