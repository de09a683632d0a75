"""What `edgellm doctor` finds out about an installation and the machine it runs on.

Every finding is one `Check`: a name, a verdict, what was found and, unless all is well, what to do.
A check never raises: whatever fails is its finding. Prints nothing; `doctor_model.py` has the
checks of a model.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from . import __version__
from .cpu import load_native, missing_features
from .errors import EdgeError
from .npu.driver import onnxruntime_library
from .planner import mib
from .store.store import Store

Verdict = Literal["ok", "warning", "failure"]
LOW_MEMORY_BYTES = 512 << 20
LOW_DISK_BYTES = 1 << 30
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*?(?:;(.*))?", re.DOTALL)
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_PLATFORM = re.compile(r"sys_platform == ['\"](\w+)['\"]")


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis. `error` is what a failure would have raised, if it was one."""

    name: str
    verdict: Verdict
    found: str
    fix: str | None = None
    error: EdgeError | None = None

    def to_dict(self) -> dict[str, str | None]:
        return {
            "name": self.name,
            "verdict": self.verdict,
            "found": self.found,
            "fix": self.fix,
            "code": None if self.error is None else self.error.code,
        }


def guarded(name: str, fix: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The findings of `check`; what it raises becomes the last one."""
    try:
        yield from check()
    except EdgeError as error:
        yield Check(name, "failure", error.message, fix, error)
    except Exception as error:  # a diagnosis must reach its end on a broken machine
        yield Check(name, "failure", f"{type(error).__name__}: {error}", fix)


def check_installation() -> Iterator[Check]:
    """Versions, processor, memory, directories, backends, extras."""
    yield Check("edgellm", "ok", f"{__version__} in {Path(__file__).parent}")
    yield _python()
    for package in ("numpy", "jinja2", "typer", "platformdirs", "filelock"):
        yield _package(package)
    yield from guarded("processor", "use a newer machine, or install edgellm again", _processor)
    yield from guarded("memory", "see what this machine allows to be read in /proc", _memory)
    yield from guarded("directories", "set HOME or the XDG_* variables", _directories)
    yield Check(
        "backends", "ok", "cpu; cuda, metal and vulkan where they are built (docs/backends.md)"
    )
    yield _npu()
    yield from guarded("extras", "install edgellm again", _extras)


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable}), {platform.platform()}"
    return Check("python", "ok", found)


def _package(name: str) -> Check:
    """Imported, not only looked up: a package compiled for another Python is no use."""
    fix = f"pip install {name}"
    try:
        importlib.import_module(name)
        return Check(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, "warning", "importable, but pip does not know its version", fix)
    except Exception as error:
        return Check(name, "failure", f"{type(error).__name__}: {error}", fix)


def _processor() -> Iterator[Check]:
    missing = missing_features()
    machine = platform.machine()
    if not missing:
        yield Check("processor", "ok", f"{machine}, has what edgellm is compiled for")
    native = load_native()
    if native.version() != __version__:
        yield Check(
            "native module",
            "failure",
            f"is of version {native.version()}, the Python files are of {__version__}",
            "install edgellm again",
        )
    else:
        yield Check("native module", "ok", f"{native.version()} in {native.__file__}")
    yield from guarded("instruction set", "unset EDGELLM_ISA", lambda: _instruction_set(native))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("threads", "ok", f"{native.default_n_threads()} by default, of {cpus} usable CPUs")


def _instruction_set(native: ModuleType) -> Iterator[Check]:
    levels = ", ".join(native.isa_levels())
    active = native.active_isa()
    forced = os.environ.get("EDGELLM_ISA")
    if not forced:
        yield Check("instruction set", "ok", f"{active}; this CPU can run {levels}")
    elif active == native.isa_levels()[0]:
        yield Check("instruction set", "ok", f"{active}, forced by EDGELLM_ISA; it is the best too")
    else:
        found = f"{active}, forced by EDGELLM_ISA; this CPU can run {levels}"
        yield Check("instruction set", "warning", found, "unset EDGELLM_ISA for full speed")


def _npu() -> Check:
    """What runs graphs, if anything does; nobody has to have it."""
    try:
        return Check("npu", "ok", f"graphs are run by {onnxruntime_library()}")
    except EdgeError as error:
        return Check("npu", "ok", error.message)


def _memory() -> Iterator[Check]:
    figures = load_native().memory_figures()
    available, total = figures["available_bytes"], figures["total_bytes"]
    found = (
        f"{mib(available)} available of {mib(total)}, this process has {mib(figures['rss_bytes'])}"
    )
    if available < LOW_MEMORY_BYTES:
        yield Check("memory", "warning", found, "end other programs, or use small models")
    else:
        yield Check("memory", "ok", found)
    machine = _machine_bytes()
    if machine is not None and total < machine:
        found = f"limits this process to {mib(total)} of the {mib(machine)} of the machine"
        yield Check("cgroup", "ok", found)
    else:
        yield Check("cgroup", "ok", "sets no memory limit")


def _machine_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _directories() -> Iterator[Check]:
    import platformdirs

    dirs = platformdirs.PlatformDirs("edgellm", appauthor=False)
    for name, directory in (
        ("cache", dirs.user_cache_path),
        ("data", dirs.user_data_path),
        ("config", dirs.user_config_path),
        ("state", dirs.user_state_path),
    ):
        yield directory_check(f"{name} directory", directory)
    yield directory_check("store directory", Store.default().directory)


def directory_check(name: str, directory: Path) -> Check:
    """Whether files can be made there. Makes none: looks at the deepest folder that exists."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return Check(
            name, "warning", f"{directory}: {existing} is no directory", f"move {existing}"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        fix = f"make {existing} writable, or set the XDG variable of it"
        return Check(name, "warning", f"{directory}: {existing} cannot be written", fix)
    free = shutil.disk_usage(existing).free
    found = f"{directory}, {mib(free)} free"
    if free < LOW_DISK_BYTES:
        return Check(name, "warning", found, "free disk space; converting needs room")
    return Check(name, "ok", found)


def _extras() -> Iterator[Check]:
    """One line for each optional extra; absent is fine, and the line says how to add it."""
    try:
        metadata = importlib.metadata.metadata("edgellm")
    except importlib.metadata.PackageNotFoundError:
        found = "edgellm runs from a folder that pip did not install; its extras are unknown"
        yield Check("extras", "warning", found, "pip install edgellm")
        return
    requirements = metadata.get_all("Requires-Dist") or []
    for extra in metadata.get_all("Provides-Extra") or []:
        if extra != "all":
            yield extra_check(extra, packages_of(extra, requirements))


def packages_of(extra: str, requirements: list[str]) -> list[str] | None:
    """Names of the packages that an extra adds; None if it is for another system."""
    names = []
    for requirement in requirements:
        match = _REQUIREMENT.fullmatch(requirement)
        name, marker = match.groups() if match else (requirement, None)
        wanted = _EXTRA.search(marker or "")
        if wanted is None or wanted.group(1) != extra:
            continue
        system = _PLATFORM.search(marker or "")
        if system is not None and system.group(1) != sys.platform:
            return None
        names.append(name)
    return names


def extra_check(extra: str, packages: list[str] | None) -> Check:
    name = f"extra {extra}"
    if packages is None:
        return Check(name, "ok", "is for another operating system")
    present, absent = [], []
    for package in packages:
        try:
            present.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
    if not absent:
        return Check(name, "ok", ", ".join(present))
    fix = f"pip install 'edgellm[{extra}]'"
    return Check(name, "ok", f"not installed: {', '.join(absent)} (optional; {fix})")
