"""Recipes of steps: what they give, what they take from earlier runs, and kills at any point."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import pipeline
from edgellm.converters.compress import (
    CompressProgress,
    CompressRecipe,
    compress,
    measure,
    read_compress_recipe,
)
from edgellm.converters.compress.recipe import ChosenStep, TextOptions
from edgellm.converters.compress.report import report_paths
from edgellm.converters.compress.store import StepStore
from edgellm.converters.compress.train_steps import RefineOptions
from edgellm.converters.distill import run
from edgellm.converters.distill.recipe import BatchOptions, OptimizerOptions, ScheduleOptions
from edgellm.converters.extras import text_blobs
from edgellm.converters.plan import Job

from edgellm import load
from edgellm.cli import run_command_line
from edgellm.cli.exits import Exit
from edgellm.errors import DeviceError, FormatError, InvalidArgumentError
from kill_points import KillableWork

RECIPE = """
source = "{source}"
out = "{out}"
threads = 1

[texts]
train = ["{text}"]
valid = ["{text}"]
calibration = ["{few}"]
window_tokens = 48
valid_windows = 3

[[steps]]
do = "prune"
layers = 1
n_windows = 2
window_tokens = 48

[[steps]]
do = "heal"
window_tokens = 48
[steps.schedule]
steps = 4
[steps.batch]
windows = 2
save_every = 2

[[steps]]
do = "quantize"
recipe = "{formats}"

[[steps]]
do = "refine"
learn = "{learn}"
window_tokens = 48
[steps.schedule]
steps = 4
[steps.optimizer]
scale_rate = 1e-2
[steps.batch]
windows = 2
save_every = 2

[[steps]]
do = "draft_head"
vocab = 64
layer_share = 8.0
samples = 4
text_windows = 4
valid_windows = 2
window_tokens = 48
prompt_tokens = 8
steps = 4
windows = 2
save_every = 2
"""
STEPS = ["prune", "heal", "quantize", "refine", "draft_head"]
FORMATS = """
[calibration]
n_windows = 4
window_tokens = 48
[[rules]]
pattern = "*"
format = "E2_16"
method = "gptq"
[[rules]]
pattern = "*"
format = "E4_16"
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    words = ("once upon a time", "there was a girl", "and a dog ran")
    lines = [json.dumps({"text": f"{words[i % 3]} {words[i * 7 % 3]}. " * 3}) for i in range(40)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def recipe_in(
    folder: Path, source: Path, text: Path, learn: str = "scales", n_lines: int = 4
) -> CompressRecipe:
    """Written and read; what it makes goes into `folder`. n_lines: to calibrate on."""
    folder.mkdir(exist_ok=True)
    formats, path = folder / "formats.toml", folder / "recipe.toml"
    few = folder / "few.jsonl"  # as many windows as calibrate, none to measure on
    line = json.dumps({"text": "the girl and the dog went home, as they always did."})
    few.write_text("\n".join([line] * n_lines), encoding="utf-8")
    formats.write_text(FORMATS.replace('"*"', '"layers.*"', 1), encoding="utf-8")
    out = folder / "model.edge"
    named = {"source": source, "out": out, "text": text, "few": few, "formats": formats}
    path.write_text(RECIPE.format(**named, learn=learn), encoding="utf-8")
    return read_compress_recipe(path)


def share_tokenizer(patch: pytest.MonkeyPatch) -> None:
    """Compiling one and proving it takes longer than a run here; all models have the same."""
    compiled: dict[bytes, dict[str, bytes]] = {}

    def blobs(job: Job) -> dict[str, bytes]:
        key = (job.checkpoint.directory / "tokenizer.json").read_bytes()
        if key not in compiled:
            compiled[key] = text_blobs(job)
        return {**compiled[key], "recipe": job.recipe.to_json().encode()}

    for module in (run, pipeline, measure):
        patch.setattr(module, "text_blobs", blobs)


@pytest.fixture
def one_tokenizer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        share_tokenizer(patch)
        yield


@pytest.mark.usefixtures("one_tokenizer")
def test_steps_give_a_file_and_a_report_and_are_not_done_twice(
    tiny_checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    recipe = recipe_in(tmp_path / "one", tiny_checkpoint, text)
    seen: list[CompressProgress] = []
    report = compress(recipe, progress=seen.append)
    names = ["source", *STEPS]
    assert [step.name for step in report.steps] == names
    assert {at.step for at in seen} == {f"step {i} of 5, {names[i]}" for i in range(1, 6)}
    source, prune, heal, quantize, refine, draft_head = report.steps
    assert heal.n_bytes == prune.n_bytes < source.n_bytes
    assert (source.kl, source.top1) == (0, 1)
    assert None not in (source.loss, heal.loss, quantize.loss)
    assert refine.n_bytes < draft_head.n_bytes == recipe.out.stat().st_size
    assert (heal.tokens, quantize.tokens, refine.tokens) == (4 * 2 * 48, 4 * 48, 4 * 2 * 48)
    assert not any(step.was_done for step in report.steps[1:])
    with load(recipe.out, verify="always") as model:
        assert np.isfinite(model.logits([1, 2, 3])).all()

    as_json, as_markdown = report_paths(recipe.out)
    stored = json.loads(as_json.read_text(encoding="utf-8"))
    assert [step["kl"] for step in stored["steps"]] == [step.kl for step in report.steps]
    assert stored["n_tokens_measured"] == 3 * 48
    lines = as_markdown.read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0] for line in lines if " | " in line][1:] == [
        f"| {name}" for name in names
    ]

    # Again: nothing to do. With another last step: that one alone.
    again = compress(recipe)
    assert all(step.was_done for step in again.steps)
    assert [step.kl for step in again.steps] == [step.kl for step in report.steps]
    other = replace(recipe, out=tmp_path / "other.edge", work=recipe.work_dir)
    options = replace(recipe.steps[3].options, learn="codes")
    other = replace(other, steps=(*recipe.steps[:3], ChosenStep("refine", options)))
    assert [step.was_done for step in compress(other).steps] == [*[True] * 4, False]
    assert other.out.read_bytes() != recipe.out.read_bytes()


@pytest.mark.usefixtures("one_tokenizer")
def test_what_was_damaged_is_made_again_and_nothing_is_overwritten(
    tiny_checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    recipe = recipe_in(tmp_path / "one", tiny_checkpoint, text)
    recipe = replace(recipe, steps=recipe.steps[2:3])
    compress(recipe)
    wanted = recipe.out.read_bytes()
    [made] = recipe.work_dir.glob("quantize-*/model.edge")
    made.write_bytes(wanted[:-1])
    with pytest.raises(FormatError, match="exists"):
        compress(recipe)
    recipe.out.unlink()
    assert [step.was_done for step in compress(recipe).steps] == [True, False]
    assert recipe.out.read_bytes() == made.read_bytes() == wanted
    recipe.out.write_bytes(b"something else")
    with pytest.raises(FormatError, match="exists and is not what the recipe gives"):
        compress(recipe)
    assert recipe.out.read_bytes() == b"something else"


def test_a_key_is_of_settings_texts_and_inputs(
    tiny_checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    """What changes a step's bytes changes its digest; how often it saves does not."""
    recipe = recipe_in(tmp_path / "one", tiny_checkpoint, text)
    _, _, quantize, refine, _ = recipe.steps

    def digest(**changes: Any) -> str:
        return ChosenStep("refine", replace(refine.options, **changes)).digest(str)

    same = digest(batch=BatchOptions(windows=2, save_every=7, threads=3))
    assert same == refine.digest(str)
    others = [
        digest(learn="codes"),
        digest(firmness=0.25),
        digest(schedule=ScheduleOptions(steps=5)),
        digest(optimizer=OptimizerOptions(rate=2e-3)),
        digest(batch=BatchOptions(windows=2, seed=1)),
    ]
    assert len({same, *others}) == len(others) + 1
    assert quantize.digest(lambda _: "a") != quantize.digest(lambda _: "b")


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        StepStore(tmp_path).locked(),
        pytest.raises(DeviceError, match="another process"),
        StepStore(tmp_path).locked(),
    ):
        pass
    left = tmp_path / ".heal-0.1234.tmp"
    left.mkdir()
    with StepStore(tmp_path).locked():
        assert not left.exists()


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('do = "heal"', 'do = "bake"', FormatError, r'step 2: do = "bake" is no step \(steps: '),
        ('do = "heal"', "do = 3", FormatError, "step 2: do = 3 is no step"),
        ('do = "heal"', 'do = "refine"', InvalidArgumentError, "step 2, 'refine', takes a .edge"),
        ('do = "refine"', 'do = "quantize"', FormatError, "step 4, 'quantize'.*not known"),
        ("threads = 1", "treads = 1", FormatError, "'treads' not known"),
        ("threads = 1", "threads = -1", InvalidArgumentError, "threads is 0 to 1024"),
        ("model.edge", "model.bin", InvalidArgumentError, "out is a .edge file"),
        ('train = ["', 'valid2 = ["', FormatError, "'valid2' not known"),
        ("steps = 4", "", FormatError, r"step 2, 'heal': \[schedule\]: needs 'steps'"),
        (
            'learn = "scales"',
            'learn = "all"',
            InvalidArgumentError,
            "step 4, 'refine': learn 'all'",
        ),
    ],
)
def test_a_recipe_with_a_fault_says_where(
    old: str, new: str, error: type[Exception], message: str, text: Path, tmp_path: Path
) -> None:
    recipe_in(tmp_path, Path("source"), text)
    path = tmp_path / "recipe.toml"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1))
    with pytest.raises(error, match=message) as caught:
        read_compress_recipe(path)
    assert str(path) in str(caught.value)


def test_a_recipe_without_steps_says_so(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('source = "a"\nout = "b.edge"\n', encoding="utf-8")
    with pytest.raises(FormatError, match=r"no \[\[steps\]\]; add at least one"):
        read_compress_recipe(path)


def test_steps_need_their_texts_and_end_with_a_file(text: Path, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, Path("source"), text)
    with pytest.raises(InvalidArgumentError, match=r"step 1, 'prune', needs \[texts\] train"):
        replace(recipe, texts=TextOptions())
    with pytest.raises(InvalidArgumentError, match="add a step 'quantize'"):
        replace(recipe, steps=recipe.steps[:1])
    with pytest.raises(InvalidArgumentError, match="teacher 'nobody' is not known"):
        RefineOptions(schedule=ScheduleOptions(steps=1), teacher="nobody")


def test_the_recipe_of_the_docs_is_read(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs" / "COMPRESSION.md"
    marked = docs.read_text(encoding="utf-8").partition("tests/converters/test_compress.py reads")
    path = tmp_path / "small.toml"
    path.write_text(marked[2].partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    recipe = read_compress_recipe(path)
    assert recipe.source == tmp_path / "checkpoint"
    assert [step.name for step in recipe.steps] == STEPS


@pytest.mark.usefixtures("one_tokenizer")
def test_the_command_line_compresses(
    tiny_checkpoint: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_in(tmp_path, tiny_checkpoint, text)
    path = tmp_path / "recipe.toml"
    head, _, _, quantize, _, _ = path.read_text(encoding="utf-8").split("[[steps]]")
    path.write_text(f"{head}[[steps]]{quantize}", encoding="utf-8")
    assert run_command_line(["compress", str(path), "--json"]) == Exit.OK
    data = json.loads(capsys.readouterr().out)["data"]
    assert [step["name"] for step in data["steps"]] == ["source", "quantize"]
    assert data["n_bytes"] == recipe.out.stat().st_size
    assert run_command_line(["compress", str(path)]) == Exit.OK
    assert "| quantize |" in capsys.readouterr().out
    path.write_text(f"{head}[[steps]]\ndo = 'quantise'\n", encoding="utf-8")
    assert run_command_line(["compress", str(path)]) == Exit.BAD_INPUT
    assert 'do = "quantise" is no step' in capsys.readouterr().err


# ---- kills

KILLED = """
from pathlib import Path
import pytest, torch
sys.path.insert(0, sys.argv[2])
import test_compress as tests
from edgellm.converters.compress import compress, measure, read_compress_recipe
from edgellm.converters.distill import measure as _, refined, trainer  # imported on first use else
tests.share_tokenizer(pytest.MonkeyPatch())
recipe = read_compress_recipe(Path(sys.argv[1]))
measure.tokenizer_blobs(recipe.source, "checkpoint")
def work(count):
    compress(recipe, progress=count)
"""


HERE = Path(__file__).parent


def forget(recipe: CompressRecipe) -> None:
    shutil.rmtree(recipe.work_dir)
    for path in (recipe.out, *report_paths(recipe.out)):
        path.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.usefixtures("one_tokenizer")
def test_two_kills_change_no_byte(tiny_checkpoint: Path, text: Path, tmp_path: Path) -> None:
    """While it learns, and after the file was quantized."""
    plain = recipe_in(tmp_path / "plain", tiny_checkpoint, text)
    compress(plain)
    killed = recipe_in(tmp_path / "killed", tiny_checkpoint, text)
    with KillableWork(KILLED, tmp_path / "killed" / "recipe.toml", HERE) as work:
        assert not work.ended_before_kill(20)
        assert not list(killed.work_dir.glob("heal-*/step.json"))
        assert not work.ended_before_kill(60)
        assert list(killed.work_dir.glob("heal-*/step.json"))
        assert not killed.out.exists()
        assert work.ended_before_kill(1_000_000)
    assert killed.out.read_bytes() == plain.out.read_bytes()
    assert not list(killed.work_dir.glob("*.work"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_fifty_kills_at_random_points_change_no_byte(
    shared_data: Path, text: Path, tmp_path: Path
) -> None:
    """A story model through the whole pipeline, as often as it takes for fifty."""
    source = shared_data / "models" / "stories260K"
    plain = recipe_in(tmp_path / "plain", source, text, learn="codes", n_lines=8)
    compress(plain)
    killed = recipe_in(tmp_path / "killed", source, text, learn="codes", n_lines=8)
    rng = np.random.default_rng(5)
    n_kills = n_ended = 0
    with KillableWork(KILLED, tmp_path / "killed" / "recipe.toml", HERE) as work:
        while n_kills < 50 or not killed.out.exists():
            if not work.ended_before_kill(int(rng.integers(1, 80))):
                n_kills += 1
                continue
            assert killed.out.read_bytes() == plain.out.read_bytes()
            n_ended += 1
            if n_kills < 50:
                forget(killed)
    assert n_ended >= 1
    print(f"{n_kills} kills in {n_ended} whole runs")
