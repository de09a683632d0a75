"""The golden chain for adapters: W + s B A merged into a model of transformers in float32, against
converters/reference.py with the adapter file, and that against the runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert
from edgellm.converters.adapter import convert_adapter
from edgellm.converters.reference import Reference

from edgellm import _native
from golden.adapters import merge, write_peft_of
from golden.families import family_ids, family_model
from golden.measures import max_abs, nmse

# What each shows: plain names and rslora; q, k, v and gate, up in one matrix; multipliers folded;
# norms around, two head sizes; q, k, v head by head; matrices stored transposed; experts beside;
# layers without heads.
FAMILIES = (
    *("llama_biases_yarn", "phi3_longrope", "granite4_dense", "gemma2_caps_windows"),
    *("gpt_neox_parallel", "gpt2_learned_positions", "mixtral_window", "lfm2_convolutions"),
)
RSLORA = "llama_biases_yarn"
# What F16 leaves of B times a multiplier that is no power of two.
LIMITS = {"granite4_dense": 2e-3}
N_DECODED = 24
Logits = npt.NDArray[np.float32]
Made = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """(model in E4_16 with float32 activations, adapter file), made once; the first link of the
    chain is checked on the way."""
    done: dict[str, tuple[Path, Path]] = {}
    folder = tmp_path_factory.mktemp("adapters")

    def make(name: str) -> tuple[Path, Path]:
        if name not in done:
            done[name] = _make(name, folder / name)
        return done[name]

    return make


def _make(name: str, folder: Path) -> tuple[Path, Path]:
    import torch

    model, ids = family_model(name), family_ids(name)
    model.save_pretrained(folder / "base")
    rslora = name == RSLORA
    write_peft_of(folder / "peft", model, use_rslora=rslora)
    base, adapter = folder / f"{name}.edge", folder / f"{name}-adapter.edge"
    convert(folder / "base", base, format="E4_16", act="f32")
    convert_adapter(folder / "peft", adapter, base=base)
    merge(model, rslora=rslora)
    with torch.inference_mode():
        wanted = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    reference = Reference.from_checkpoint(folder / "base", n_ctx=len(ids))
    got = reference.with_adapter(adapter).logits(ids).numpy()
    scale = float(np.abs(wanted).max())
    assert max_abs(wanted, got) <= LIMITS.get(name, 1e-4) * scale
    assert max_abs(wanted, reference.logits(ids).numpy()) > 0.1 * scale
    return base, adapter


@pytest.mark.parametrize("name", FAMILIES)
def test_the_chain_holds_with_an_adapter(name: str, made: Made) -> None:
    """A prompt in one piece, then token by token."""
    base, adapter = made(name)
    ids = family_ids(name)
    reference = Reference.from_edge(base, n_ctx=len(ids)).with_adapter(adapter)
    wanted = reference.logits(ids, kv="F16").numpy()
    assert nmse(wanted, native_logits(base, adapter, ids, n_threads=2)) <= 1e-6


def test_scalar_code_and_any_number_of_threads_give_the_same_bits(
    made: Made, tmp_path: Path
) -> None:
    pairs = [made(name) for name in FAMILIES[:4]]
    subprocess.run(
        [sys.executable, "-c", SCALAR_CODE, str(tmp_path), *(str(p) for two in pairs for p in two)],
        env=os.environ | {"EDGELLM_ISA": "scalar", "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
    )
    for base, adapter in pairs:
        wanted = np.load(tmp_path / f"{base.stem}.npy")
        for n_threads in (1, 2):
            got = native_logits(base, adapter, family_ids(base.stem), n_threads)
            assert np.array_equal(wanted, got), (base.stem, n_threads)


SCALAR_CODE = """
import sys
from pathlib import Path
import numpy as np
from golden.families import family_ids
from golden.test_adapters import native_logits
for base, adapter in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    path = Path(base)
    found = native_logits(path, Path(adapter), family_ids(path.stem), 1)
    np.save(Path(sys.argv[1]) / f"{path.stem}.npy", found)
"""


def native_logits(base: Path, adapter: Path, ids: list[int], n_threads: int) -> Logits:
    """[len(ids), n_vocab], the last N_DECODED of them token by token."""
    model = _native.Model.load(str(base), n_threads=n_threads, verify="never", kv_format="F16")
    session = _native.Session(model, len(ids), _native.Adapter.load(model, adapter))
    n_prompt = len(ids) - N_DECODED
    parts = []
    for piece in (ids[:n_prompt], *([token] for token in ids[n_prompt:])):
        session.append(piece)
        while session.pending:
            parts.append(session.run_with_logits(1e9))
    return np.concatenate(parts)
