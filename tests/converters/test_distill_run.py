"""Whole runs on a tiny model: they learn, and go on after an interruption to the same bits."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters import convert, pipeline
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.distill import TrainProgress, TrainRecipe, TrainReport, run, train
from edgellm.converters.distill.curves import read_curve
from edgellm.converters.distill.recipe import (
    BatchOptions,
    CacheOptions,
    DataOptions,
    LossOptions,
    OptimizerOptions,
    OwnOptions,
    ScheduleOptions,
)
from edgellm.converters.distill.refined import RefinedStudent
from edgellm.converters.extras import text_blobs
from edgellm.converters.plan import Job
from edgellm.converters.reference import Reference
from safetensors.numpy import load_file

from edgellm import load
from edgellm.edgefile import read_header, read_tensor
from edgellm.errors import EdgeError

STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def _one_tokenizer() -> Iterator[None]:
    """Compiling one and proving it takes longer than a run here; all runs have the same."""
    compiled: dict[bytes, dict[str, bytes]] = {}

    def blobs(job: Job) -> dict[str, bytes]:
        key = (job.checkpoint.directory / "tokenizer.json").read_bytes()
        if key not in compiled:
            compiled[key] = text_blobs(job)
        return dict(compiled[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "text_blobs", blobs)
        patch.setattr(pipeline, "text_blobs", blobs)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    words = ("the cat sat on the mat", "a dog ran", "1 + 1 = 2")
    lines = [
        json.dumps({"text": f"{words[i % 3]} {words[i * 7 % 3]}. " * 3, "kind": f"kind{i % 2}"})
        for i in range(40)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tiny_checkpoint: Path, text: Path, tmp_path: Path) -> TrainRecipe:
    return TrainRecipe(
        student=tiny_checkpoint,
        out=tmp_path / "out",
        data=DataOptions((text,), valid=(text,), window_tokens=48, valid_windows=3),
        schedule=ScheduleOptions(steps=STEPS, warmup=1),
        batch=BatchOptions(windows=2, accumulate=2, threads=1, save_every=2, valid_every=3),
        optimizer=OptimizerOptions(rate=3e-3),
    )


def distilling(recipe: TrainRecipe, teacher: Path, **changes: object) -> TrainRecipe:
    loss = LossOptions(next_token=0.0, teacher=1.0, divergence="forward_kl")
    return replace(recipe, **{"teacher": teacher, "loss": loss, **changes})


def interrupted(recipe: TrainRecipe, at: int) -> None:
    """Stops after step `at`, as Ctrl-C does."""

    def stop(progress: TrainProgress) -> None:
        if progress.stage == "train" and progress.n_done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, progress=stop)


def written(recipe: TrainRecipe) -> dict[str, bytes]:
    """What a run leaves: its result, and its curve."""
    paths = [recipe.out] if recipe.out.is_file() else sorted(recipe.out.iterdir())
    return {path.name: path.read_bytes() for path in [*paths, recipe.work_dir / "curve.jsonl"]}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_learns_and_goes_on_to_the_same_bits(
    recipe: TrainRecipe, optimizer: str, tmp_path: Path
) -> None:
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, name=optimizer))
    report = train(recipe)
    assert report.before is not None
    assert report.after is not None
    assert report.after.loss_after < report.before.loss_after - 0.3
    assert report.n_tokens == STEPS * 4 * 48
    lines = read_curve(recipe.work_dir)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(set(line["kinds"]) == {"kind0", "kind1"} for line in steps)
    assert [line["step"] for line in lines if "valid" in line] == [3, 6]
    Reference.from_checkpoint(recipe.out).logits([1, 2, 3])

    again = replace(recipe, out=tmp_path / "again" / "out")
    again.out.parent.mkdir()
    interrupted(again, at=3)  # one step after the last that was saved
    assert not again.out.exists()
    resumed = train(again)
    assert resumed.steps == STEPS - 2
    assert written(again) == written(recipe)
    assert resumed.loss == report.loss


def test_a_damaged_step_is_passed_over_for_the_one_before(
    recipe: TrainRecipe, tmp_path: Path
) -> None:
    train(recipe)
    again = replace(recipe, out=tmp_path / "again" / "out")
    again.out.parent.mkdir()
    interrupted(again, at=5)
    folders = sorted(again.work_dir.glob("step-*"))
    assert [folder.name for folder in folders] == ["step-00000002", "step-00000004"]
    damaged = folders[1] / "optimizer.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert train(again).steps == STEPS - 2
    assert written(again) == written(recipe)


def test_another_recipe_does_not_go_on_with_a_runs_folder(recipe: TrainRecipe) -> None:
    interrupted(recipe, at=2)
    other = replace(recipe, optimizer=replace(recipe.optimizer, rate=1e-4))
    with pytest.raises(EdgeError, match="a run of another recipe"):
        train(other)


def test_weights_from_nothing_learn_from_a_teacher(
    recipe: TrainRecipe, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    student = tmp_path / "student"
    student.mkdir()
    config = json.loads((tiny_checkpoint / "config.json").read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": 1, "intermediate_size": 32}
    (student / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (student / "tokenizer.json").write_bytes((tiny_checkpoint / "tokenizer.json").read_bytes())
    report = train(distilling(recipe, tiny_checkpoint, student=student))
    assert report.before is not None
    assert report.after is not None
    assert report.after.kl < report.before.kl
    with Checkpoint(recipe.out) as made:
        assert made.config["num_hidden_layers"] == 1

    # Drawn tokens serve as well, and hidden states cannot be drawn.
    cached = distilling(recipe, tiny_checkpoint, student=student, out=tmp_path / "cached")
    cached = replace(cached, cache=CacheOptions(tmp_path / "cache"))
    report = train(cached)
    assert report.after is not None
    assert report.before is not None
    assert report.after.kl < report.before.kl


@pytest.mark.parametrize("learn", ["scales", "codes"])
def test_a_compressed_file_comes_nearer_to_its_teacher_in_its_own_format(
    recipe: TrainRecipe, tiny_checkpoint: Path, learn: str, tmp_path: Path
) -> None:
    start = tmp_path / "start.edge"
    convert(tiny_checkpoint, start, format="E2_16")
    options = OptimizerOptions(rate=2e-2, scale_rate=1e-2)
    refined = distilling(
        recipe,
        tiny_checkpoint,
        student=start,
        out=tmp_path / "refined.edge",
        learn=learn,
        optimizer=options,
        schedule=ScheduleOptions(steps=12),
        batch=BatchOptions(windows=4, threads=1, save_every=4),
    )
    report = train(refined)
    assert report.before is not None
    assert report.after is not None
    assert report.after.kl < 0.8 * report.before.kl

    before, after = read_header(start), read_header(refined.out)
    weights = {info.name: info for info in before.tensors.values() if info.format != "U8"}
    assert {info.name: info for info in after.tensors.values() if info.format != "U8"} == weights
    assert bytes(read_tensor(after, "tokenizer")) == bytes(read_tensor(before, "tokenizer"))
    stored = json.loads(bytes(read_tensor(after, "report")))
    assert stored["quality"]["divergence"]["kl"] == report.after.kl
    assert json.loads(bytes(read_tensor(after, "recipe")))["refined"]["learn"] == learn

    # What was measured is the file: its own numbers are those that the last step left.
    again = RefinedStudent(refined.out, options, with_codes=learn == "codes")
    ids = torch.arange(2, 42)[None]
    model = again.model(torch.zeros_like(ids))
    with torch.inference_mode():
        wanted = model.head(model.last_hidden(ids))[0].numpy()
    with load(refined.out, kv="F16", verify="always") as runtime:
        got = runtime.logits(ids[0].tolist())
    error = float(np.square(got - wanted).sum() / np.square(wanted).sum())
    assert error < 1e-3  # keys and values in F16, which tips a rounding here and there


def test_a_refined_run_goes_on_to_the_same_file(
    recipe: TrainRecipe, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start.edge"
    convert(tiny_checkpoint, start, format="E4_32")
    one = distilling(
        recipe, tiny_checkpoint, student=start, out=tmp_path / "one.edge", learn="codes"
    )
    train(one)
    two = replace(one, out=tmp_path / "two.edge")
    interrupted(two, at=5)
    train(two)
    assert one.out.read_bytes() == two.out.read_bytes()


@pytest.mark.parametrize("learn", ["weights", "scales"])
def test_a_student_learns_on_text_of_its_own(
    recipe: TrainRecipe, tiny_checkpoint: Path, learn: str, tmp_path: Path
) -> None:
    """Of a block of steps the model as it was at its first; a run that goes on in between has it
    still."""
    own = distilling(recipe, tiny_checkpoint, own=OwnOptions(0.5, every=3, prompt_tokens=4))
    if learn == "scales":
        start = tmp_path / "start.edge"
        convert(tiny_checkpoint, start, format="E2_16")
        own = replace(own, student=start, out=tmp_path / "own.edge", learn=learn)
    else:
        own = replace(own, loss=replace(own.loss, divergence="reverse_kl", next_token=0.5))
    train(own)
    [block] = own.work_dir.glob("own-*")
    assert block.name == "own-00000003"  # of the last three steps; older ones are not needed
    assert [path.name for path in block.iterdir()] == ["tokens.safetensors"]
    tokens = load_file(block / "tokens.safetensors")["tokens"]
    assert tokens.shape == (6, 48)
    assert len(np.unique(tokens[:, 4:], axis=0)) == 6

    again = replace(own, out=tmp_path / "again" / own.out.name)
    again.out.parent.mkdir()
    interrupted(again, at=5)
    train(again)
    assert written(again) == written(own)
    plain = replace(own, own=None, out=tmp_path / "plain" / own.out.name)
    plain.out.parent.mkdir()
    train(plain)
    assert written(plain) != written(own)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("learn", ["weights", pytest.param("codes", marks=pytest.mark.slow)])
def test_kills_at_any_write_change_no_bit(
    recipe: TrainRecipe, tiny_checkpoint: Path, learn: str, tmp_path: Path
) -> None:
    if learn == "codes":
        start = tmp_path / "start.edge"
        convert(tiny_checkpoint, start, format="E4_32")
        out = tmp_path / "out.edge"
        recipe = distilling(recipe, tiny_checkpoint, student=start, out=out, learn=learn)
    train(recipe)
    again = replace(recipe, out=tmp_path / "again" / recipe.out.name)
    again.out.parent.mkdir()
    rng = np.random.default_rng(3)
    n_kills = 0
    while not ended_before_kill(again, at_sync=int(rng.integers(1, 12))):
        n_kills += 1
        assert n_kills < 60
        if again.out.exists():
            break  # it was renamed, and its folder about to be synced
    assert n_kills >= 3
    assert written(again) == written(recipe)


def ended_before_kill(recipe: TrainRecipe, at_sync: int) -> bool:
    """Trains in a process that kills itself when it is about to sync a file for the nth time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that the child does not have
        child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return not os.WIFSIGNALED(status)
    calls = itertools.count(1)
    sync = os.fsync

    def kill_or_sync(descriptor: int) -> None:
        if next(calls) == at_sync:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = kill_or_sync
    try:
        train(recipe)
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_bf16_products_learn_too(recipe: TrainRecipe) -> None:
    report = train(replace(recipe, batch=replace(recipe.batch, dtype="bf16")))
    assert report.before is not None
    assert report.after is not None
    assert report.after.loss_after < report.before.loss_after - 0.3


def test_what_cannot_be_trained_says_why(
    recipe: TrainRecipe, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.edge"
    convert(tiny_checkpoint, plain, format="F16")
    cases: list[tuple[TrainRecipe, str]] = [
        (replace(recipe, out=tmp_path), "exists; training replaces no directory"),
        (replace(recipe, out=tmp_path / "no" / "out"), "no such directory"),
        (
            distilling(
                recipe, tiny_checkpoint, student=plain, out=tmp_path / "x.edge", learn="scales"
            ),
            "no matrix is in an E format",
        ),
        (replace(recipe, data=replace(recipe.data, window_tokens=65536)), "a window has 65536"),
        (replace(recipe, optimizer=OptimizerOptions(rate=1e30, clip=0.0)), "the loss is"),
    ]
    for bad, message in cases:
        with pytest.raises(EdgeError, match=re.escape(message)):
            train(bad)


def test_reports_are_json(recipe: TrainRecipe) -> None:
    report: TrainReport = train(replace(recipe, schedule=ScheduleOptions(steps=1)))
    assert json.loads(json.dumps(report.to_dict()))["steps"] == 1
