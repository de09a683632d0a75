"""Runs graphs with OpenVINO: on Intel's NPU, or where a caller says so on its CPU plugin.

`device` of the settings is "NPU"; "CPU" for the CPU plugin in float32; or "NPU-ON-CPU" for the NPU
plugin that partitions the graph and hands the parts to the CPU plugin, which shows that the plugin
takes it and nothing about the chip. Needs openvino.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DeviceError, UnsupportedError
from .host import Tensor

_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
_DEVICES = {
    "NPU": ("NPU", {}),
    "CPU": ("CPU", _EXACT),
    "NPU-ON-CPU": ("NPU", {"NPU_USE_NPUW": "YES", "NPUW_DEVICES": "CPU"}),
}


class OpenVinoRunner:
    """One graph. DeviceError: the device, or the compiler for it, is not there."""

    def __init__(self, path: Path, device: str, threads: int = 0) -> None:
        openvino = _package()
        if device not in _DEVICES:
            raise UnsupportedError(
                f"device '{device[:40]}' is not known (known: {', '.join(_DEVICES)})",
                code="feature_unsupported",
            )
        plugin, settings = _DEVICES[device]
        if threads and device == "CPU":
            settings = {**settings, "INFERENCE_NUM_THREADS": str(threads)}
        core = openvino.Core()
        try:
            self._request = core.compile_model(str(path), plugin, settings).create_infer_request()
        except RuntimeError as error:
            raise DeviceError(
                f"{path}: OpenVINO does not compile for device {device} here ({_reason(error)}); "
                "an NPU needs its driver, and the driver's compiler, on the machine that runs it; "
                "device 'CPU' runs the same graph on the CPU plugin",
                code="device_unavailable",
            ) from error
        compiled = self._request.get_compiled_model()
        self._outputs = [output.get_any_name() for output in compiled.outputs]

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name."""
        results = self._request.infer(dict(feeds), share_inputs=False)
        return {name: results[index].copy() for index, name in enumerate(self._outputs)}


def _reason(error: RuntimeError) -> str:
    """The last line that says something: traces of the library come before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"


def _package() -> Any:
    try:
        import openvino as package
    except ImportError as error:
        raise UnsupportedError(
            f"graphs for Intel are run by openvino ({error}): pip install 'edgellm[npu-intel]'",
            code="feature_unsupported",
        ) from error
    return package
