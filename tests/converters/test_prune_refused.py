"""What cannot be pruned, or not so much, is refused with what to do; nothing is left behind."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, plan_conversion
from edgellm.converters.export import export
from edgellm.converters.prune import PredictOptions, PruneOptions, prune

from edgellm.errors import EdgeError, FormatError, InvalidArgumentError, UnsupportedError
from gguf_format.model import model_bytes
from golden.families import save_family
from golden.tiny import write_checkpoint
from pruning import CONFIG, FIXED, pruned


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "model", CONFIG)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"layers": 4}, InvalidArgumentError, "layers is 4; at most 3"),
        ({"attention": 5}, InvalidArgumentError, "attention is 5; at most 4"),
        ({"heads": 9}, InvalidArgumentError, "heads is 9; at most 8"),
        ({"heads": 3, "uniform": True}, InvalidArgumentError, "multiple of 4"),
        ({"heads": 12, "uniform": True}, InvalidArgumentError, "up to 8"),
        ({"vocab": 97}, InvalidArgumentError, "the model has 97 tokens"),
        ({"vocab": 40}, FormatError, "no tokenizer files"),
    ],
)
def test_more_than_there_is_is_refused(
    options: dict[str, object], kind: type[EdgeError], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        pruned(source, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_pruned_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="name at least one file"):
        prune(source, tmp_path / "out", PruneOptions(layers=1))
    tokens = CalibrationTokens(np.array([[0, 97]], dtype=np.int32))
    with pytest.raises(InvalidArgumentError, match="the tokens go from 0 to 97"):
        prune(source, tmp_path / "out", PruneOptions(layers=1), texts=tokens)
    (tmp_path / "taken").mkdir()
    with pytest.raises(FormatError, match="exists"):
        prune(source, tmp_path / "taken", PruneOptions(), predict_options=FIXED)
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(model_bytes())
    with pytest.raises(UnsupportedError, match="Hugging Face directory"):
        prune(gguf, tmp_path / "out", PruneOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": [192] * 3}, "3 entries for 4 layers"),
        ({"intermediate_size": [192, 192, 192, "x"]}, "must be an integer"),
        ({"num_attention_heads": [6, 6, 6, 0]}, "n_heads"),
        ({"num_attention_heads": [6] * 4, "head_dim": None}, "must be an integer"),
        ({"num_key_value_heads": [3, 3, 3, 4]}, "must divide n_heads"),
        ({"intermediate_size": [192, 192, 192, 1 << 60]}, "larger than"),
    ],
)
def test_arrays_of_widths_are_checked(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**CONFIG, **change}), encoding="utf-8")
    with pytest.raises(EdgeError, match=message):
        plan_conversion(path)


def test_a_family_that_cannot_say_it_is_refused(tmp_path: Path) -> None:
    """GPT-NeoX knows no head_dim: fewer heads would be wider ones."""
    row = "gpt_neox_parallel"
    source, _ = save_family(row, tmp_path / "source")
    tokens = CalibrationTokens(np.arange(48, dtype=np.int32).reshape(2, 24))
    with pytest.raises(UnsupportedError, match=r"config\.json of this family cannot say"):
        prune(source, tmp_path / "out", PruneOptions(heads=1), texts=tokens, predict_options=FIXED)
    assert not (tmp_path / "out").exists()


def test_layers_that_are_no_attention_are_refused(tmp_path: Path) -> None:
    source, _ = save_family("lfm2_convolutions", tmp_path / "source")
    tokens = CalibrationTokens(np.arange(48, dtype=np.int32).reshape(2, 24))
    with pytest.raises(UnsupportedError, match="layer 0 is a short_conv: layers are pruned only"):
        prune(source, tmp_path / "out", PruneOptions(layers=1), texts=tokens, predict_options=FIXED)


def test_options_are_checked() -> None:
    good = PruneOptions()
    for change, message in (
        ({"layers": -1}, "layers is 0 to"),
        ({"ffn": 1.0}, "below 1"),
        ({"ffn": math.nan}, "share of the channels"),
        ({"layers_by": "size"}, "'size' is not known"),
        ({"heads_by": ""}, "not known"),
        ({"mask": "wanda", "ffn": 0.5}, "for study"),
        ({"uniform": True, "attention": 1}, "uniform excludes"),
        ({"window_tokens": 4}, "8 to 65536"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            replace(good, **change)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="0 or more"):
        PredictOptions(bandwidth_gb_per_s=math.inf)


@pytest.mark.parametrize("kind", ["gguf-f16", "fp8-tensor"])
def test_files_of_other_programs_have_no_place_for_layers_that_differ(
    kind: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match="differ in width"):
        export(pruned(source, tmp_path / "uneven", ffn=0.4), tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()
    same = pruned(source, tmp_path / "same", ffn=0.4, uniform=True)
    assert export(same, tmp_path / "out", kind).n_weights > 0
