"""Runs graphs with onnxruntime: on its CPU provider, or on an NPU's with no fallback to the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DeviceError, UnsupportedError
from .host import Tensor

NO_FALLBACK = "session.disable_cpu_ep_fallback"
CPU = "CPUExecutionProvider"


class OrtRunner:
    """One graph. devices: of an execution provider that was registered; provider: one that is in
    onnxruntime; options: of either. Without them the CPU provider.

    DeviceError: the provider does not take the whole graph; nothing runs on the CPU instead.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        devices: Sequence[Any] = (),
        provider: str = CPU,
        options: Mapping[str, str] | None = None,
        entries: Mapping[str, str] | None = None,
    ) -> None:
        ort = onnxruntime()
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 3
        for key, value in (entries or {}).items():
            settings.add_session_config_entry(key, value)
        if devices or provider != CPU:
            settings.add_session_config_entry(NO_FALLBACK, "1")
        if devices:
            settings.add_provider_for_devices(list(devices), dict(options or {}))
        providers = None if devices else [(provider, dict(options or {}))]
        try:
            self._session = ort.InferenceSession(str(path), settings, providers=providers)
        except Exception as error:
            raise DeviceError(
                f"{path}: onnxruntime does not take the graph: {str(error)[:400]}",
                code="device_failed",
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name."""
        return dict(zip(self._outputs, self._session.run(None, dict(feeds)), strict=True))


def onnxruntime() -> Any:
    """The package; UnsupportedError says how to install it."""
    try:
        import onnxruntime as package
    except ImportError as error:
        raise UnsupportedError(
            f"graphs are run by onnxruntime ({error}): pip install 'edgellm[npu]'",
            code="feature_unsupported",
        ) from error
    return package
