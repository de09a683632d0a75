"""Pruning over what checkpoints are like: fused, transposed and scaled tensors, patterns of layers;
the recipe, the verb, and what comes after."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert, plan_conversion
from edgellm.converters.compress import compress, read_compress_recipe
from edgellm.converters.distill import TrainRecipe, train
from edgellm.converters.distill.recipe import (
    BatchOptions,
    DataOptions,
    LossOptions,
    ScheduleOptions,
)
from edgellm.converters.prune import (
    PredictOptions,
    PruneOptions,
    prune,
    read_prune_recipe,
)
from edgellm.converters.reference import Reference
from safetensors.numpy import load_file

from edgellm import load
from edgellm.cli import run_command_line
from edgellm.cli.exits import Exit
from edgellm.errors import EdgeError, FormatError, InvalidArgumentError
from golden.families import FAMILIES, save_family
from golden.measures import nmse
from golden.tiny import shared_model

ROOT = Path(__file__).parents[2]
FIXED = PredictOptions("E4_16", bandwidth_gb_per_s=10.0)
TEXT = CalibrationTokens(np.random.default_rng(1).integers(0, 101, (3, 20)).astype(np.int32))
CUTS = {
    "phi3_longrope": {"layers": 1, "heads": 1, "ffn": 0.3},  # fused matrices
    "gemma3_two_bases": {"layers": 1, "ffn": 0.3},  # norms lie around zero, layers by number
    "granite_multipliers": {"attention": 1},  # matrices are scaled on their way
    "gpt2_learned_positions": {"layers": 1},  # stored transposed
    "smollm3_nope_layers": {"layers": 1, "heads": 1},  # every so manyth layer has no positions
    "qwen2_moe_shared_expert": {"layers": 1, "heads": 1},  # experts
}


@pytest.mark.parametrize("name", CUTS)
def test_a_family_is_pruned_and_runs_natively(name: str, tmp_path: Path) -> None:
    source, _ = save_family(name, tmp_path / "source")
    same = tmp_path / "same"
    prune(source, same, PruneOptions(), predict_options=FIXED)
    whole, written = (load_file(d / "model.safetensors") for d in (source, same))
    model, copy = Reference.from_checkpoint(source), Reference.from_checkpoint(same)
    assert {k: v.numpy().tobytes() for k, v in model.weights.items()} == {
        k: v.numpy().tobytes() for k, v in copy.weights.items()
    }
    assert all(np.array_equal(whole[key], value) for key, value in written.items() if key in whole)

    out = tmp_path / "out"
    options = PruneOptions(**CUTS[name])  # type: ignore[arg-type]
    report = prune(source, out, options, texts=TEXT, predict_options=FIXED)
    before, after = plan_conversion(source).spec, plan_conversion(out).spec
    assert len(after.layers) == len(report.cut.layers)
    for layer, cut in zip(after.layers, report.cut.layers, strict=True):
        of_source = before.layers[cut.index]
        assert (layer.n_heads, layer.n_kv_heads) == (len(cut.heads), len(cut.kv_heads))
        assert (layer.rope, layer.window) == (of_source.rope, of_source.window)
        assert layer.d_ffn == (of_source.d_ffn if cut.channels is None else len(cut.channels))
    file = tmp_path / "out.edge"
    convert(out, file, format="E4_16", act="f32")
    ids = TEXT.windows[0].tolist()
    wanted = Reference.from_edge(file).logits(ids, kv="F16").numpy()
    with load(file, kv="F16", verify="never") as native:
        assert nmse(wanted, native.logits(ids)) <= 1e-6


def test_every_family_keeps_its_layers_in_number() -> None:
    assert set(CUTS) <= set(FAMILIES)


@pytest.mark.parametrize("model", ["seed6m", "stories260K"])
def test_real_models_are_pruned_and_run_natively(model: str, tmp_path: Path) -> None:
    source = shared_model(model)
    with np.load(source / "expected" / "greedy.npz") as greedy:
        text = np.stack([greedy["output_ids_0"], greedy["output_ids_1"]]).astype(np.int32)
    text = text.reshape(4, -1)
    out = tmp_path / "out"
    options = PruneOptions(layers=1, attention=1, heads=2, ffn=0.2)
    tokens = CalibrationTokens(text)
    report = prune(source, out, options, texts=tokens, predict_options=FIXED)
    assert report.predicted.after.n_weights < 0.85 * report.predicted.before.n_weights
    file = tmp_path / "out.edge"
    convert(out, file, format="E4_16", act="f32")
    window = text[0].tolist()
    wanted = Reference.from_edge(file).logits(window, kv="F16").numpy()
    with load(file, kv="F16", verify="never") as native:
        assert nmse(wanted, native.logits(window)) <= 1e-6


def test_a_pipeline_prunes_before_it_quantizes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text('{"text": "the cat sat on the mat"}\n' * 30)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'source = "{tiny_checkpoint}"\nout = "small.edge"\nthreads = 1\n'
        '[texts]\ntrain = ["text.jsonl"]\n'
        '[[steps]]\ndo = "prune"\nlayers = 1\nwindow_tokens = 24\nn_windows = 4\n'
        '[[steps]]\ndo = "quantize"\nformat = "E4_16"\n'
    )
    report = compress(read_compress_recipe(recipe))
    with load(tmp_path / "small.edge", verify="always") as model:
        assert len(model.generate("the cat", max_tokens=4).token_ids) > 0
    pruned = next(step for step in report.steps if step.name == "prune")
    before, after = pruned.figures["n_weights"]
    assert after < before
    assert pruned.tokens == 4 * 24


def recipe_of_the_docs() -> str:
    text = (ROOT / "docs" / "COMPRESSION.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- prune: .*? -->\n```toml\n(.*?)```", text, re.DOTALL)
    return str(block)


def test_the_recipe_of_the_docs_has_every_key(tmp_path: Path) -> None:
    path = tmp_path / "smaller.toml"
    path.write_text(recipe_of_the_docs(), encoding="utf-8")
    recipe = read_prune_recipe(path)
    assert recipe.name == "smaller"
    assert recipe.source == tmp_path / "checkpoint"
    keys = set(re.findall(r"^#? ?(\w+) =", recipe_of_the_docs(), re.MULTILINE))
    for table in (PruneOptions, PredictOptions):
        assert {field.name for field in fields(table)} <= keys


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        ("[prune]", "[prune]\nspeed = 2", FormatError, r"\[prune\]: 'speed' not known"),
        ("layers = 1", "layers = -1", InvalidArgumentError, r"\[prune\]: layers is 0 to"),
        ("uniform = false", 'uniform = "no"', FormatError, "must be true or false"),
        ("ffn = 0.25", "ffn = 1.5", InvalidArgumentError, "share of the channels"),
        ('out = "', 'result = "', FormatError, "'result' not known"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(
    old: str, new: str, kind: type[EdgeError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    text = recipe_of_the_docs()
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(kind, match=message) as raised:
        read_prune_recipe(path)
    assert "bad.toml" in str(raised.value)


def test_the_verb_says_what_it_gives_then_cuts_and_the_trainer_heals(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jsonl").write_text('{"text": "the cat sat on the mat"}\n' * 30)
    recipe = tmp_path / "smaller.toml"
    recipe.write_text(
        f'source = "{tiny_checkpoint}"\nout = "small"\ntexts = ["text.jsonl"]\n'
        "[prune]\nlayers = 1\nheads = 1\nwindow_tokens = 24\nn_windows = 4\n"
        "[predict]\nbandwidth_gb_per_s = 8.0\n"
    )
    assert run_command_line(["prune", str(recipe), "--dry-run", "--json"]) == Exit.OK
    predicted = json.loads(capsys.readouterr().out)["data"]["predicted"]
    assert not (tmp_path / "small").exists()
    assert run_command_line(["prune", str(recipe)]) == Exit.OK
    told = capsys.readouterr().out
    assert "layers gone" in told
    assert "8.00 GB/s (given)" in told
    assert f"-> {predicted['after']['file_bytes']:,} (" in told
    assert run_command_line(["prune", str(recipe)]) == Exit.BAD_INPUT
    assert "exists" in capsys.readouterr().err

    healed = train(
        TrainRecipe(
            student=tmp_path / "small",
            teacher=tiny_checkpoint,
            out=tmp_path / "healed",
            data=DataOptions(
                (tmp_path / "text.jsonl",), valid=(tmp_path / "text.jsonl",), window_tokens=24
            ),
            loss=LossOptions(next_token=0.0, teacher=1.0, divergence="forward_kl"),
            schedule=ScheduleOptions(steps=8),
            batch=BatchOptions(windows=4, threads=1),
        )
    )
    assert healed.before is not None
    assert healed.after is not None
    assert healed.after.kl < 0.7 * healed.before.kl
    assert plan_conversion(tmp_path / "healed").spec == plan_conversion(tmp_path / "small").spec
