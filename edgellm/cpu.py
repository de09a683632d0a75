"""Whether this processor can run the native module, asked before that is loaded.

edgellm._native is compiled for x86-64-v2 (armv8.0 on ARM); on an older processor it would die of an
illegal instruction. edgellm._cpu is compiled for the oldest one and answers everywhere.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import DeviceError, UnsupportedError


def missing_features() -> list[str]:
    """Instruction sets that edgellm._native needs and this processor lacks."""
    try:
        from . import _cpu
    except ImportError as error:
        raise _incomplete(error) from error
    return _cpu.missing()


def load_native() -> ModuleType:
    """edgellm._native, or UnsupportedError where it could not run."""
    missing = missing_features()
    if missing:
        message = (
            f"this processor lacks {', '.join(missing)}; edgellm needs x86-64-v2, which Intel has "
            "since Nehalem (2008) and AMD since Bulldozer (2011): use a newer machine"
        )
        raise UnsupportedError(message, code="cpu_unsupported")
    try:
        return importlib.import_module("edgellm._native")
    except ImportError as error:
        raise _incomplete(error) from error


def _incomplete(error: ImportError) -> DeviceError:
    message = f"this installation of edgellm is not complete ({error}); install edgellm again"
    return DeviceError(message, code="os_failure")
