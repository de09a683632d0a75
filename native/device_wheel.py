"""The distributions edgellm-cuda and edgellm-vulkan: one backend alone, which pip puts beside
edgellm's module.

    python3 native/device_wheel.py cuda build/cuda/libedgellm_cuda.so dist

Needs nothing but Python: `make cuda` or `make vulkan` builds the library, and the same library and
version give the same bytes. The wheel is named after the oldest system that has all symbols the
library asks for.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
MACHINES = {62: "x86_64", 183: "aarch64"}  # e_machine of an ELF header
OLDEST_GLIBC = (2, 28)  # that edgellm itself runs on
MOMENT = (1980, 1, 1, 0, 0, 0)  # of every file
CUDA_NOTE = """\
libedgellm_cuda.so is part of edgellm and licensed as LICENSE beside this file says. It contains the
CUDA runtime (cudart, linked statically), which NVIDIA Corporation lets programs distribute under
the terms of the CUDA Toolkit End User License Agreement, attachment A. NVIDIA's driver is not part
of it: without one the backend says so, and edgellm runs on the CPU.
"""


@dataclass(frozen=True)
class Backend:
    """notice: name and text of a file beside LICENSE, for what others have written of it."""

    name: str
    summary: str
    license: str = "Apache-2.0"
    notice: tuple[str, str] | None = None


BACKENDS = {
    "cuda": Backend(
        "cuda",
        "The CUDA backend of edgellm, for NVIDIA GPUs from compute capability 8.0 on",
        "Apache-2.0 AND LicenseRef-NVIDIA-CUDA-EULA",
        ("NOTICE-CUDA.txt", CUDA_NOTE),
    ),
    "vulkan": Backend("vulkan", "The Vulkan backend of edgellm, for GPUs with Vulkan 1.2"),
}


def package_version() -> str:
    text = (ROOT / "edgellm" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    if found is None:
        raise SystemExit("error: edgellm/__init__.py has no __version__")
    return found[1]


def platform_of(library: bytes, path: Path, backend: Backend) -> str:
    """The platform tag. Exits where the file is no library of a Linux that edgellm runs on."""
    if library[:6] != b"\x7fELF\x02\x01" or len(library) < 64:
        makes = f"`make {backend.name}` builds one"
        raise SystemExit(f"error: {path} is no 64-bit Linux library; {makes}")
    machine = MACHINES.get(int.from_bytes(library[18:20], "little"))
    if machine is None:
        raise SystemExit(f"error: {path} is for a processor that edgellm has no wheel for")
    asked = re.findall(rb"GLIBC_(\d+)\.(\d+)", library)
    newest = max((int(major), int(minor)) for major, minor in [*asked, (b"2", b"17")])
    if newest > OLDEST_GLIBC:
        print(
            f"note: {path} asks for glibc {newest[0]}.{newest[1]}, edgellm for no more than "
            f"{OLDEST_GLIBC[0]}.{OLDEST_GLIBC[1]}: build it on an older system for older ones",
            file=sys.stderr,
        )
    newest = max(newest, OLDEST_GLIBC)
    return f"manylinux_{newest[0]}_{newest[1]}_{machine}"


def wheel_files(library: bytes, platform: str, version: str, backend: Backend) -> dict[str, bytes]:
    """Name in the archive -> bytes."""
    info = f"edgellm_{backend.name}-{version}.dist-info"
    notices = {} if backend.notice is None else dict([backend.notice])
    license_files = "".join(f"License-File: {name}\n" for name in ("LICENSE", *notices))
    metadata = f"""\
Metadata-Version: 2.4
Name: edgellm-{backend.name}
Version: {version}
Summary: {backend.summary}
License-Expression: {backend.license}
{license_files}Requires-Python: >=3.11
Requires-Dist: edgellm=={version}
"""
    wheel = f"""\
Wheel-Version: 1.0
Generator: edgellm {version}
Root-Is-Purelib: false
Tag: py3-none-{platform}
"""
    files = {
        f"edgellm/libedgellm_{backend.name}.so": library,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": wheel.encode(),
        f"{info}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
        **{f"{info}/licenses/{name}": text.encode() for name, text in notices.items()},
    }
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    record = f"{info}/RECORD"
    return {**files, record: "\n".join([*lines, f"{record},,", ""]).encode()}


def write_wheel(backend: Backend, library: Path, folder: Path) -> Path:
    """Returns the wheel's path."""
    if not library.is_file():
        raise SystemExit(f"error: {library} is not there; `make {backend.name}` builds it")
    content, version = library.read_bytes(), package_version()
    platform = platform_of(content, library, backend)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"edgellm_{backend.name}-{version}-py3-none-{platform}.whl"
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in wheel_files(content, platform, version, backend).items():
            entry = zipfile.ZipInfo(name, MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            archive.writestr(entry, data)
    partial.replace(path)
    return path


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def main() -> None:
    if len(sys.argv) != 4 or sys.argv[1] not in BACKENDS:
        names = "|".join(BACKENDS)
        print(f"usage: python3 native/device_wheel.py {names} LIBRARY FOLDER", file=sys.stderr)
        raise SystemExit(2)
    print(write_wheel(BACKENDS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])))


if __name__ == "__main__":
    main()
