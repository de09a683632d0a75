"""Spoiled checkpoints: weights, config.json and tokenizer.json give a typed error or work."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters.plan import Job, Options
from edgellm.converters.sources import open_checkpoint
from edgellm.converters.tokenizer import compile_tokenizer, proof

from edgellm import EdgeError
from tiny_model import write_tiny_checkpoint
from tokenizer.sources import write_sentencepiece
from tokenizer.spoil import spoil_bytes, spoil_json

N_MUTATIONS = 300
N_AT_NIGHT = 20_000


def use_weights(directory: Path) -> None:
    """Everything that a conversion reads of the weights and the configuration, but the encoding."""
    with open_checkpoint(directory) as checkpoint, np.errstate(all="ignore"):
        job = Job(checkpoint, Options(None, None, None, None))
        for item in job.planned:
            if item.source is not None:
                rows = job.read_rows(item, 0, item.rows_cols[0])
                assert rows.shape == item.rows_cols
        checkpoint.optional_json("tokenizer_config.json")


def use_tokenizer(directory: Path) -> None:
    compile_tokenizer(directory)


USES = {
    "model.safetensors": use_weights,
    "config.json": use_weights,
    "tokenizer.json": use_tokenizer,
    "tokenizer.model": use_tokenizer,
}


def spoiled(data: bytes, name: str, rng: random.Random) -> bytes:
    if name.endswith(".json") and rng.random() < 0.7:
        return spoil_json(data, rng)
    if name == "model.safetensors":
        n_header = int.from_bytes(data[:8], "little")
        if rng.random() < 0.6:
            header = spoil_json(data[8 : 8 + n_header], rng)
            return len(header).to_bytes(8, "little") + header + data[8 + n_header :]
        return spoil_bytes(data, rng, 8 + n_header)
    return spoil_bytes(data, rng, len(data))


def run_mutations(directory: Path, name: str, n: int, seed: int) -> Counter[str]:
    """How many mutants of the file `name` were read all the same ("fine") or refused, by code."""
    path = directory / name
    data, rng = path.read_bytes(), random.Random(seed)
    found: Counter[str] = Counter()
    for number in range(n):
        path.write_bytes(spoiled(data, name, rng))
        try:
            USES[name](directory)
            found["fine"] += 1
        except EdgeError as error:
            found[error.code] += 1
        except BaseException as error:
            raise AssertionError(f"mutation {number} of seed {seed}: {error!r}") from error
    path.write_bytes(data)
    return found


@pytest.fixture
def few_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "N_PROOF_STRINGS", 8)
    monkeypatch.setattr(proof, "N_RANDOM_VECTORS", 8)


@pytest.fixture
def checkpoints(tmp_path: Path, few_proofs: None) -> dict[str, Path]:
    """The directory in which each kind of file stands."""
    tiny = write_tiny_checkpoint(tmp_path / "tiny")
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    write_sentencepiece(pieces / "tokenizer.model")
    for directory, names in ((tiny, list(USES)[:3]), (pieces, ["tokenizer.model"])):
        for name in names:
            USES[name](directory)  # as it is, it is read
    return {name: pieces if name == "tokenizer.model" else tiny for name in USES}


def check(found: Counter[str], n: int, codes: set[str]) -> None:
    assert found.total() == n
    assert 0 < found["fine"] < n
    assert codes <= set(found), found


CODES: dict[str, set[str]] = {
    "model.safetensors": {"json_syntax", "tensor_offsets", "tensor_missing"},
    "config.json": {"json_syntax", "json_type"},
    "tokenizer.json": {"json_syntax", "tokenizer_invalid"},
    "tokenizer.model": {"tokenizer_invalid"},
}


@pytest.mark.parametrize("name", sorted(USES))
def test_spoiled_files_give_typed_errors(checkpoints: dict[str, Path], name: str) -> None:
    n = N_MUTATIONS // 3 if USES[name] is use_tokenizer else N_MUTATIONS
    check(run_mutations(checkpoints[name], name, n, seed=1), n, CODES[name])


@pytest.mark.parametrize(
    "single",
    [
        [{"Sequence": {"id": "B", "type_id": 0}}],
        [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
    ],
    ids=["HF panics over a second text", "HF does not look for the token"],
)
def test_templates_that_hf_accepts_and_cannot_run(
    checkpoints: dict[str, Path], single: list[object]
) -> None:
    path = checkpoints["tokenizer.json"] / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["post_processor"]["single"] = single
    data["post_processor"]["special_tokens"] = {}
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(EdgeError) as raised:
        compile_tokenizer(path.parent)
    assert raised.value.code == "tokenizer_invalid"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(USES))
def test_five_thousand_spoiled_files_of_each_kind(checkpoints: dict[str, Path], name: str) -> None:
    n = N_AT_NIGHT // len(USES)
    check(run_mutations(checkpoints[name], name, n, seed=2), n, CODES[name])
