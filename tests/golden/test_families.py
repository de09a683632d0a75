"""The golden chain for every family: transformers in float32 against converters/reference.py, and
that against the runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from edgellm.converters import convert
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.distill.save import stored_tensors
from edgellm.converters.distill.student import PackedModel, checkpoint_weights
from edgellm.converters.plan import Job, Options
from edgellm.converters.reference import Reference, torch_tables
from edgellm.converters.spec import LayerSpec

from edgellm import _native
from golden.families import FAMILIES, family_ids, save_family
from golden.measures import max_abs, nmse

N_DECODED = 64
Logits = npt.NDArray[np.float32]
Saved = Callable[[str], tuple[Path, Logits]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A family's checkpoint and its logits by transformers, made once."""
    made: dict[str, tuple[Path, Logits]] = {}

    def save(name: str) -> tuple[Path, Logits]:
        if name not in made:
            made[name] = save_family(name, tmp_path_factory.mktemp(name))
        return made[name]

    return save


@pytest.fixture(scope="module")
def edge_files(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family in E4_16 with float32 activations, converted once."""
    folder = tmp_path_factory.mktemp("edge")

    def make(name: str) -> Path:
        out = folder / f"{name}.edge"
        if not out.exists():
            convert(saved(name)[0], out, format="E4_16", act="f32")
        return out

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_reference_equals_transformers(name: str, saved: Saved) -> None:
    directory, wanted = saved(name)
    ids = family_ids(name)
    got = Reference.from_checkpoint(directory, n_ctx=len(ids)).logits(ids).numpy()
    scale = float(np.abs(wanted).max())
    assert scale > 1, "weights too small for the comparison to mean anything"
    assert max_abs(wanted, got) <= 1e-4 * scale


def batch_logits(job: Job, tokens: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    weights = {**checkpoint_weights(job), **torch_tables(job.tables)}
    model = PackedModel(job.spec, weights, documents)
    with torch.inference_mode():
        return model.head(model.last_hidden(tokens))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_trains_is_the_reference_in_batches_and_packed_windows(
    name: str, saved: Saved
) -> None:
    """And its weights go back to what the family stores."""
    directory, _ = saved(name)
    n, cut = 40, 17
    tokens = torch.tensor([family_ids(name)[:n], family_ids(name)[-n:]])
    with Checkpoint(directory) as checkpoint:
        job = Job(checkpoint, Options("F16", None, None, None))
        alone = Reference.from_checkpoint(directory, n_ctx=n)
        wanted = torch.stack([alone.logits(row.tolist()) for row in tokens])
        close = 1e-5 * float(wanted.abs().max())
        got = batch_logits(job, tokens, torch.zeros_like(tokens))
        assert float((wanted - got).abs().max()) <= close

        # Two documents in a window: the first always, the second where positions are relative.
        both = batch_logits(job, tokens, (torch.arange(n) >= cut).long().expand(2, -1))
        assert float((both[:, :cut] - wanted[:, :cut]).abs().max()) <= close
        if not job.spec.n_positions:
            second = torch.stack([alone.logits(row[cut:].tolist()) for row in tokens])
            # Rotations of other positions round otherwise.
            assert float((both[:, cut:] - second).abs().max()) <= 10 * close
        assert float((both[:, cut:] - wanted[:, cut:]).abs().max()) > 100 * close

        for stored, array in stored_tensors(job, checkpoint_weights(job)).items():
            info = checkpoint.tensors[stored]
            raw = checkpoint.file_bytes(info.path, info.offset_bytes, info.n_bytes)
            original = raw.view("<f4").reshape(info.shape)
            np.testing.assert_allclose(array, original, rtol=0, atol=3e-7)


def test_longrope_is_chosen_by_the_planned_context(saved: Saved) -> None:
    """Up to the original context transformers takes the other table, and so does the reference."""
    import torch
    from transformers import AutoModelForCausalLM

    directory, _ = saved("phi3_longrope")
    ids = family_ids("phi3_longrope")[:32]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.inference_mode():
        wanted = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    short = Reference.from_checkpoint(directory, n_ctx=32).logits(ids).numpy()
    long = Reference.from_checkpoint(directory, n_ctx=33).logits(ids).numpy()
    assert max_abs(wanted, short) <= 1e-4 * np.abs(wanted).max()
    assert max_abs(wanted, long) > 1e-2


def test_every_feature_of_the_spec_is_in_a_row(saved: Saved) -> None:
    plain = LayerSpec(1, 1, 2, 1)
    seen: set[str] = set()
    for name in FAMILIES:
        for layer in Reference.from_checkpoint(saved(name)[0]).spec.layers:
            seen |= {key for key, value in vars(layer).items() if value != getattr(plain, key)}
    # No checkpoint says how keys are stored: a conversion may (test_kv_formats.py).
    assert seen == set(vars(plain)) - {"rotate_keys", "balance_keys"}


@pytest.mark.parametrize("name", FAMILIES)
def test_native_equals_the_reference(name: str, edge_files: Callable[[str], Path]) -> None:
    """The prompt in one piece, then token by token."""
    path, ids = edge_files(name), family_ids(name)
    wanted = Reference.from_edge(path, n_ctx=len(ids)).logits(ids, kv="F16").numpy()
    got = native_logits(path, ids, n_threads=2)
    assert nmse(wanted, got) <= 1e-6


def test_scalar_code_and_any_number_of_threads_give_the_same_bits(
    edge_files: Callable[[str], Path], tmp_path: Path
) -> None:
    paths = [edge_files(name) for name in FAMILIES]
    subprocess.run(
        [sys.executable, "-c", SCALAR_CODE, str(tmp_path), *map(str, paths)],
        env=os.environ | {"EDGELLM_ISA": "scalar", "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
    )
    for path in paths:
        wanted = np.load(tmp_path / f"{path.stem}.npy")
        for n_threads in (1, 2):
            got = native_logits(path, family_ids(path.stem), n_threads)
            assert np.array_equal(wanted, got), (path.stem, n_threads)


SCALAR_CODE = """
import sys
from pathlib import Path
import numpy as np
from golden.families import family_ids
from golden.test_families import native_logits
for name in sys.argv[2:]:
    path = Path(name)
    np.save(Path(sys.argv[1]) / f"{path.stem}.npy", native_logits(path, family_ids(path.stem), 1))
"""


def native_logits(path: Path, ids: list[int], n_threads: int) -> Logits:
    """[len(ids), n_vocab], the last N_DECODED of them token by token."""
    model = _native.Model.load(str(path), n_threads=n_threads, verify="never", kv_format="F16")
    session = _native.Session(model, len(ids))
    n_prompt = len(ids) - N_DECODED
    parts = []
    for piece in (ids[:n_prompt], *([token] for token in ids[n_prompt:])):
        session.append(piece)
        while session.pending:
            parts.append(session.run_with_logits(1e9))
    return np.concatenate(parts)
