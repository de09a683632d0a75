"""The aarch64 wheel in dist/ (`make wheels`) gives this machine's tokens and bits under emulation.

Its Python comes from this distribution's package index, for its own architecture and without root;
where one of the pieces cannot be had, the test says which and is skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgellm

ROOT = Path(__file__).parent.parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TAG = VERSION.replace(".", "")
PACKAGES = (
    f"python{VERSION}-minimal",
    f"libpython{VERSION}-minimal",
    f"libpython{VERSION}-stdlib",
    *("libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libexpat1"),
    *("libssl3", "libffi8", "libbz2-1.0", "liblzma5"),
)
PROMPT = "Once upon a time"
SPEAK = f"""
import hashlib, json, sys
import edgellm
from edgellm import _native
answers = []
for path in sys.argv[1:]:
    model = edgellm.load(path, threads=2)
    ids = model.tokenize({PROMPT!r})
    ids += model.generate(ids, max_tokens=48).token_ids
    answers.append([ids, hashlib.sha256(model.logits(ids).tobytes()).hexdigest()])
print(json.dumps(dict(module=_native.__file__, levels=_native.isa_levels(), answers=answers)))
"""

pytestmark = pytest.mark.slow


def run_or_skip(command: list[str], why: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{why}: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def wheel() -> Path:
    wheels = sorted(
        (ROOT / "dist").glob(f"edgellm-*-cp{TAG}-*_aarch64.whl"), key=lambda p: p.stat().st_mtime
    )
    if not wheels:
        pytest.skip(f"no cp{TAG} aarch64 wheel in dist/: run `make wheels`")
    return wheels[-1]


@pytest.fixture(scope="module")
def arm_python(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of an emulated Python of the wheel's version."""
    tools = {name: shutil.which(name) for name in ("qemu-aarch64", "apt-get", "dpkg-deb")}
    for name, found in tools.items():
        if found is None:
            pytest.skip(f"no {name} here: it needs Debian or Ubuntu with package qemu-user")
    scratch = tmp_path_factory.mktemp("apt")
    for folder in ("state/lists/partial", "cache/archives/partial", "debs", "root"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()
    # Nothing of the system's own package state is read or changed.
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": str(scratch / "state"),
        "Dir::State::status": str(scratch / "status"),
        "Dir::Cache": str(scratch / "cache"),
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    run_or_skip([*apt, "update"], "no package index for arm64", scratch)
    run_or_skip([*apt, "download", *PACKAGES], f"no Python {VERSION} for arm64", scratch / "debs")
    root = scratch / "root"
    for package in sorted((scratch / "debs").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return ["qemu-aarch64", "-L", str(root), str(root / "usr" / "bin" / f"python{VERSION}")]


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and numpy, both for aarch64."""
    house, site = tmp_path_factory.mktemp("house"), tmp_path_factory.mktemp("site")
    platform = ["--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_28_aarch64"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    command += ["--no-deps", "--only-binary", ":all:", *platform, "-d", str(house), "numpy"]
    run_or_skip(command, "no numpy for aarch64", house)
    for path in (wheel, *house.glob("numpy-*.whl")):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(site)
    return site


@pytest.fixture(scope="module")
def models(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from edgellm.converters import convert

    folder = tmp_path_factory.mktemp("models")
    paths = [folder / f"{name}.edge" for name in ("E4_16", "F16")]
    for path in paths:
        convert(shared_data / "models" / "stories260K", path, format=path.stem)
    return paths


@pytest.mark.parametrize(
    ("processor", "level"),
    [("cortex-a53", "neon"), ("cortex-a76", "neon_dot"), ("max", "neon_i8mm")],
)
def test_the_aarch64_module_gives_the_same_tokens_and_bits(
    processor: str, level: str, site: Path, arm_python: list[str], models: list[Path], demo_path
) -> None:
    paths = [*models, demo_path]
    done = subprocess.run(
        [*arm_python, "-P", "-c", SPEAK, *map(str, paths)],
        env={
            "HOME": str(site.parent),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(site),
            "QEMU_CPU": processor,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["module"].startswith(str(site))
    assert said["module"].endswith(f".cpython-{TAG}-aarch64-linux-gnu.so")
    assert said["levels"][0] == level
    for path, answer in zip(paths, said["answers"], strict=True):
        with edgellm.load(path, threads=2) as model:
            ids = model.tokenize(PROMPT)
            ids += model.generate(ids, max_tokens=48).token_ids
            assert answer == [ids, hashlib.sha256(model.logits(ids).tobytes()).hexdigest()], path
