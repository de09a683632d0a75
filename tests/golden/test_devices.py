"""Every block of the model spec, mixtures of experts and short convolutions on the backends of
devices, which are emulated here, but Vulkan's, which is this machine's or Mesa's for the CPU: every
logit is the CPU's. Equality here is `==`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert

from edgellm import _native
from edgellm.edgefile import read_header
from edgellm.errors import DeviceError
from edgellm.layer_split import STEP_BYTES, host_layers
from golden.blocks import CASES, ids_of, write_case
from golden.families import save_family
from golden.test_experts import CONFIGS, write_checkpoint

BUILT = Path(__file__).parents[2] / "build" / "editable" / "tests"
LIBRARY = {
    "cuda": BUILT / "libedgellm_cuda_emulated.so",
    "metal": BUILT / "libedgellm_metal_emulated.so",
    "vulkan": BUILT.parent / "libedgellm_vulkan.so",
}


@pytest.fixture(params=LIBRARY)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, demo_path: Path) -> str:
    library = LIBRARY[request.param]
    if not library.exists():
        pytest.skip(f"NOT TESTED: {request.param}; the editable install builds {library.name}")
    monkeypatch.setenv(f"EDGELLM_{request.param.upper()}_LIBRARY", str(library))
    if request.param == "vulkan":
        try:
            _native.Model.load(demo_path, n_threads=1, verify="never", backend="vulkan").close()
        except DeviceError as error:
            pytest.skip(f"NOT TESTED: {error}")
    return str(request.param)


def logits_on(backend: str, path: Path, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """A prompt, then a few tokens one by one."""
    model = _native.Model.load(path, n_threads=1, verify="never", backend=backend)
    assert model.backend == backend
    session = _native.Session(model)
    parts = []
    for begin, end in ((0, len(ids) - 3), *((i, i + 1) for i in range(len(ids) - 3, len(ids)))):
        session.append(ids[begin:end])
        while session.pending:
            parts.append(session.run_with_logits(1e9))
    return np.concatenate(parts)


def check(device: str, path: Path, ids: Sequence[int]) -> None:
    wanted = logits_on("cpu", path, ids)
    assert wanted.shape[0] == len(ids)
    assert np.array_equal(logits_on(device, path, ids), wanted)


@pytest.mark.parametrize("name", CASES)
def test_every_block_has_the_bits_of_the_cpu(device: str, name: str, tmp_path: Path) -> None:
    check(device, write_case(name, "E4_16", tmp_path), ids_of(name)[:24])


@pytest.mark.parametrize("name", CONFIGS)
def test_experts_have_the_bits_of_the_cpu(device: str, name: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / name, CONFIGS[name])
    convert(checkpoint, tmp_path / "model.edge", format="E4_16")
    check(device, tmp_path / "model.edge", [(7919 * t + 13) % 90 for t in range(24)])


def test_short_convolutions_have_the_bits_of_the_cpu(device: str, tmp_path: Path) -> None:
    checkpoint, _ = save_family("lfm2_convolutions", tmp_path / "checkpoint")
    convert(checkpoint, tmp_path / "model.edge", format="E4_16")
    check(device, tmp_path / "model.edge", [(31 * t + 3) % 97 for t in range(24)])


def test_a_prompt_read_with_8_bit_floats_is_near_the_cpus(
    demo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step of many rows differs a little, those of one row by what they read of it."""
    if not LIBRARY["cuda"].exists():
        pytest.skip("NOT TESTED: the editable install builds the emulated library")
    monkeypatch.setenv("EDGELLM_CUDA_LIBRARY", str(LIBRARY["cuda"]))
    ids = [(37 * t + 11) % 500 for t in range(24)]
    wanted = logits_on("cpu", demo_path, ids).astype(np.float64)
    found = logits_on("cuda-fp8", demo_path, ids).astype(np.float64)
    spread = (wanted - wanted.mean(axis=1, keepdims=True)).std(axis=1)
    distance = np.sqrt(((found - wanted) ** 2).mean(axis=1)) / spread
    assert (distance > 0).all()
    assert distance.mean() < 0.2


def _native_model(path: Path) -> AbstractContextManager[_native.Model]:
    return closing(_native.Model.load(path, n_threads=1, verify="never", backend="cuda"))


def test_the_plan_knows_which_layers_stay_on_the_cpu(
    demo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not LIBRARY["cuda"].exists():
        pytest.skip("NOT TESTED: the editable install builds the emulated library")
    monkeypatch.setenv("EDGELLM_CUDA_LIBRARY", str(LIBRARY["cuda"]))
    header = read_header(demo_path)
    with _native_model(demo_path) as whole:
        kv_bytes = whole.kv_bytes()
        assert whole.host_layers == 0
    for part in (0.9, 0.6, 0.4):
        room = int(part * header.file_bytes)
        monkeypatch.setenv("EDGELLM_EMULATED_DEVICE_BYTES", str(STEP_BYTES + kv_bytes + room))
        with _native_model(demo_path) as split:
            assert split.host_layers == host_layers(header, room)
