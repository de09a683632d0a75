"""The runtime of other machines, cross-built by `make arm` and `make windows` and run here, gives
the same tokens as the one built for this machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgellm import _native

ROOT = Path(__file__).parent.parent
HOST_RUN = ROOT / "build" / "editable" / "tools" / "edge_run"
GREEDY = ("-n", "48", "-t", "2")
SAMPLED = (*GREEDY, "--temp", "1.2", "--top-p", "0.95", "--seed", "11")


@dataclass(frozen=True)
class Machine:
    """A processor and system other than this one, and the instruction set to use there."""

    program: str  # under build/
    make: str  # the target that builds it
    emulators: tuple[str, ...]
    packages: str
    isa: str
    env: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    @property
    def is_arm(self) -> bool:
        return self.program.startswith("aarch64")


def arm(isa: str, processor: str) -> Machine:
    return Machine(
        program="aarch64/tools/edge_run",
        make="make arm",
        emulators=("qemu-aarch64", "qemu-aarch64-static"),
        packages="g++-aarch64-linux-gnu and qemu-user",
        isa=isa,
        env={"QEMU_CPU": processor},
        arguments=("-L", "/usr/aarch64-linux-gnu"),
    )


def windows(isa: str) -> Machine:
    return Machine(
        program="mingw/tools/edge_run.exe",
        make="make windows",
        emulators=("wine64", "wine"),
        packages="g++-mingw-w64-x86-64-posix and wine64",
        isa=isa,
        env={"WINEDEBUG": "-all"},
    )


MACHINES = {
    "scalar-on-cortex-a53": arm("scalar", "cortex-a53"),
    "neon-on-cortex-a53": arm("neon", "cortex-a53"),
    "neon_dot-on-cortex-a76": arm("neon_dot", "cortex-a76"),
    "neon_i8mm-on-max": arm("neon_i8mm", "max"),
    "scalar-on-windows": windows("scalar"),
    "sse41-on-windows": windows("sse41"),
    "avx2-on-windows": windows("avx2"),
    "avx512vnni-on-windows": windows("avx512vnni"),
}
PARAMS = [
    pytest.param(machine, id=name, marks=pytest.mark.slow if "windows" in name else ())
    for name, machine in MACHINES.items()
]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or os.name != "posix", reason="emulates from Linux on x86-64"
)


@pytest.fixture(scope="session")
def wine_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wine")


@pytest.fixture(params=PARAMS)
def machine(request: pytest.FixtureRequest) -> Machine:
    machine: Machine = request.param
    if not (ROOT / "build" / machine.program).exists():
        pytest.skip(f"no build/{machine.program}: install {machine.packages}, run `{machine.make}`")
    if not machine.is_arm and machine.isa not in _native.isa_levels():
        pytest.skip(f"this processor lacks {machine.isa}")
    return machine


def command_of(machine: Machine) -> list[str]:
    for emulator in machine.emulators:
        if found := shutil.which(emulator):
            return [found, *machine.arguments, str(ROOT / "build" / machine.program)]
    pytest.skip(f"no {machine.emulators[0]} here: install {machine.packages}")


def says(command: list[str], model: Path, prompt: str, *options: str, **env: str) -> bytes:
    done = subprocess.run(
        [*command, str(model), prompt, *options],
        env=os.environ | env,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.replace(b"\r\n", b"\n")


def assert_same_tokens(machine: Machine, wine_prefix: Path, model: Path, prompt: str) -> None:
    if not HOST_RUN.exists():
        pytest.skip("no build/editable/tools/edge_run: run `make native`")
    env = machine.env | {"EDGELLM_ISA": machine.isa, "WINEPREFIX": str(wine_prefix)}
    for options in (GREEDY, SAMPLED):
        there = says(command_of(machine), model, prompt, *options, **env)
        here = says([str(HOST_RUN)], model, prompt, *options)
        assert len(here) > 40
        assert there == here


def test_the_tiny_model_says_the_same(machine: Machine, wine_prefix: Path, tiny_edge: Path) -> None:
    assert_same_tokens(machine, wine_prefix, tiny_edge, "hello")


@pytest.mark.parametrize("format", ["E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32", "F16"])
def test_a_real_model_says_the_same_in_every_format(
    format: str, machine: Machine, wine_prefix: Path, stories: dict[str, Path]
) -> None:
    assert_same_tokens(machine, wine_prefix, stories[format], "Once upon a time")


@pytest.fixture(scope="session")
def stories(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """stories260K in every format."""
    from edgellm.converters import convert

    folder = tmp_path_factory.mktemp("stories")
    paths = {
        name: folder / f"{name}.edge"
        for name in ("E2_16", "E3_32", "E4_16", "E4_32", "E6_16", "E8_32", "F16")
    }
    for name, path in paths.items():
        convert(shared_data / "models" / "stories260K", path, format=name)
    return paths


def test_an_instruction_set_that_the_processor_lacks_is_refused(
    machine: Machine, wine_prefix: Path, tiny_edge: Path
) -> None:
    lacking = "avx2" if machine.is_arm else "neon"
    done = subprocess.run(
        [*command_of(machine), str(tiny_edge), "hello"],
        env=os.environ | machine.env | {"EDGELLM_ISA": lacking, "WINEPREFIX": str(wine_prefix)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "cpu_unsupported" in done.stderr
