"""What the compiled Vulkan kernels say of themselves: that no driver may fuse a product and a sum,
and that they ask for nothing that the host does not look for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILT = ROOT / "build" / "editable" / "vulkan"
KERNELS = sorted((ROOT / "native" / "src" / "backends" / "vulkan" / "kernels").glob("*.comp"))
MAGIC = 0x07230203
CAPABILITY, DECORATE, NO_CONTRACTION = 17, 71, 42
ADD, SUBTRACT, MULTIPLY, DIVIDE = 129, 131, 133, 136
# Shader, Float64, Int64, Int8, StorageBuffer16BitAccess, StorageBuffer8BitAccess,
# SignedZeroInfNanPreserve, PhysicalStorageBufferAddresses: candidate.cc looks for them.
CAPABILITIES = {1, 10, 11, 39, 4433, 4448, 4466, 5347}
FLOAT64 = 10


def words_of(name: str, way: str) -> list[int]:
    path = BUILT / f"{name}.{way}.inc"
    if not path.exists():
        pytest.skip("NOT TESTED: Vulkan's kernels; install packages glslc and libvulkan-dev")
    return [int(word, 0) for word in path.read_text().replace("\n", ",").split(",") if word.strip()]


def instructions(words: list[int]) -> Iterator[tuple[int, list[int]]]:
    assert words[0] == MAGIC
    at = 5
    while at < len(words):
        length, code = words[at] >> 16, words[at] & 0xFFFF
        yield code, words[at + 1 : at + length]
        at += length


@pytest.mark.parametrize("way", ["FUSED", "DOUBLE"])
@pytest.mark.parametrize("name", [kernel.stem for kernel in KERNELS])
def test_every_rounding_is_its_own(name: str, way: str) -> None:
    exact: set[int] = set()
    rounding: set[int] = set()
    capabilities: set[int] = set()
    for code, operands in instructions(words_of(name, way)):
        if code == DECORATE and operands[1] == NO_CONTRACTION:
            exact.add(operands[0])
        elif code in (ADD, SUBTRACT, MULTIPLY, DIVIDE):
            rounding.add(operands[1])
        elif code == CAPABILITY:
            capabilities.add(operands[0])
    assert rounding <= exact
    assert capabilities <= CAPABILITIES
    assert way == "DOUBLE" or FLOAT64 not in capabilities
