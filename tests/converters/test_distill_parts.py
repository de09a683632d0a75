"""Losses, schedules, packing, the cache of drawn tokens, and recipes of training."""

from __future__ import annotations

import itertools
import json
import lzma
import math
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters.distill.data import Packed, TextReader, pack, step_windows
from edgellm.converters.distill.logit_cache import SHARD_WINDOWS, LogitCache
from edgellm.converters.distill.losses import DIVERGENCE, hidden_distance, mean_of, next_token
from edgellm.converters.distill.optimizer import Learnt, Optimizer, orthogonalized
from edgellm.converters.distill.recipe import (
    BatchOptions,
    DataOptions,
    LossOptions,
    OptimizerOptions,
    ScheduleOptions,
    read_train_recipe,
)
from edgellm.converters.distill.schedule import rate_at

from edgellm.errors import EdgeError, FormatError, InvalidArgumentError


def log_probs(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


@pytest.mark.parametrize("name", DIVERGENCE)
def test_a_divergence_is_zero_for_equals_only_and_falls_towards_the_teacher(name: str) -> None:
    p, q = log_probs(1, 5, 11), log_probs(2, 5, 11)
    assert float(DIVERGENCE[name](p, p, 0.3).abs().max()) < 1e-12
    assert float(DIVERGENCE[name](p, q, 0.3).min()) > 0
    nearer = torch.logaddexp(p, q) - math.log(2)
    assert (DIVERGENCE[name](p, nearer, 0.3) < DIVERGENCE[name](p, q, 0.3)).all()


def test_divergences_are_their_definitions() -> None:
    p, q = log_probs(1, 11), log_probs(2, 11)
    a, b = p.exp().numpy(), q.exp().numpy()

    def kl(x: np.ndarray, y: np.ndarray) -> float:
        return float((x * np.log(x / y)).sum())

    wanted = {
        "forward_kl": kl(a, b),
        "reverse_kl": kl(b, a),
        "skew_forward": kl(a, 0.3 * a + 0.7 * b),
        "skew_reverse": kl(b, 0.7 * a + 0.3 * b),
        "js": 0.3 * kl(a, 0.3 * a + 0.7 * b) + 0.7 * kl(b, 0.3 * a + 0.7 * b),
    }
    got = {name: float(DIVERGENCE[name](p, q, 0.3)) for name in DIVERGENCE}
    assert got == pytest.approx(wanted, abs=1e-12)


def test_the_first_token_of_a_document_follows_from_nothing() -> None:
    logs = log_probs(3, 1, 4, 7)
    tokens, documents = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[0, 0, 5, 5]])
    losses, counted = next_token(logs, tokens, documents)
    assert counted.tolist() == [[True, False, True]]
    wanted = -(logs[0, 0, 2] + logs[0, 2, 4]) / 2
    assert float(mean_of(losses, counted)) == pytest.approx(float(wanted))
    assert float(mean_of(losses, torch.zeros_like(counted))) == 0


def test_hidden_states_are_compared_in_units_of_the_teachers() -> None:
    teacher = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    got = hidden_distance(teacher + 1, teacher)
    assert got.tolist() == pytest.approx([1 / 6.25, 1 / 6.25])


def test_schedules_begin_and_end_where_they_say() -> None:
    cosine = ScheduleOptions(steps=100, kind="cosine", warmup=10, final=0.1)
    rates = [rate_at(step, cosine) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == 1
    assert rates[99] == pytest.approx(0.1)
    assert rates[54] == pytest.approx(0.55)  # half way
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    wsd = ScheduleOptions(steps=100, kind="wsd", warmup=10, decay=20, final=0.0)
    rates = [rate_at(step, wsd) for step in range(100)]
    assert set(rates[10:80]) == {1.0}
    assert rates[80] == pytest.approx(0.95)
    assert rates[99] == pytest.approx(0)
    assert rate_at(5, ScheduleOptions(steps=10, kind="constant")) == 1
    assert rate_at(9, ScheduleOptions(steps=10, kind="linear", final=0.5)) == pytest.approx(0.5)


def learnt(*shape: int) -> dict[str, Learnt]:
    value = log_probs(7, *shape).float().requires_grad_()
    return {"w": Learnt(value, 0.1, decays=True, is_matrix=True)}


def test_adamw_is_its_definition() -> None:
    options = OptimizerOptions(beta1=0.9, beta2=0.95, weight_decay=0.5, clip=0.0, epsilon=1e-8)
    parameters = learnt(3, 4)
    value = parameters["w"].value
    wanted = value.detach().double().numpy()
    mean = square = np.zeros_like(wanted)
    optimizer = Optimizer(parameters, options)
    for step in range(1, 4):
        grad = log_probs(step, 3, 4)
        value.grad = grad.float()
        assert optimizer.step(0.5) == pytest.approx(float(grad.norm()))
        g = grad.numpy()
        mean, square = 0.9 * mean + 0.1 * g, 0.95 * square + 0.05 * g * g
        unbiased = mean / (1 - 0.9**step), square / (1 - 0.95**step)
        wanted = wanted * (1 - 0.05 * 0.5) - 0.05 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    assert value.detach().numpy() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_muons_steps_have_singular_values_of_about_one(shape: tuple[int, int]) -> None:
    singular = torch.linalg.svdvals(orthogonalized(log_probs(8, *shape).float()))
    assert 0.5 < float(singular.min()) <= float(singular.max()) < 1.3
    parameters = learnt(*shape)
    value = parameters["w"].value
    before = value.detach().clone()
    value.grad = log_probs(8, *shape).float()
    Optimizer(parameters, OptimizerOptions(name="muon", weight_decay=0.0)).step(1.0)
    moved = (value.detach() - before) / 0.1
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.17, rel=0.2)


def test_gradients_are_clipped_by_their_common_norm() -> None:
    parameters = learnt(2, 2) | {"v": Learnt(torch.zeros(2, requires_grad=True), 0.1, False)}
    for parameter in parameters.values():
        parameter.value.grad = torch.full(parameter.value.shape, 3.0)
    optimizer = Optimizer(parameters, OptimizerOptions(clip=1.0, beta1=0.0))
    assert optimizer.step(1.0) == pytest.approx(3 * 6**0.5)
    clipped = optimizer.state()["v/mean"]
    assert clipped.tolist() == pytest.approx([6**-0.5] * 2)
    with pytest.raises(FormatError, match="not this run's"):
        optimizer.load({"n_steps": torch.tensor(1)})


def test_steps_take_every_window_once_an_epoch() -> None:
    taken = np.concatenate([step_windows(7, step, 3, seed=1) for step in range(7)])
    for epoch in range(3):
        assert sorted(taken[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert taken[:7].tolist() != taken[7:14].tolist()
    assert step_windows(7, 2, 3, seed=1).tolist() == taken[6:9].tolist()
    assert step_windows(2, 0, 5, seed=1).shape == (5,)


class Words:
    """A tokenizer of one token a word, its length."""

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


def test_documents_stand_one_behind_the_other_with_their_kinds(tmp_path: Path) -> None:
    lines = [{"text": "a bb ccc", "kind": "code"}, {"text": "dd e"}, {"text": "ffff"}]
    path = tmp_path / "some.jsonl.xz"
    path.write_bytes(lzma.compress("\n".join(map(json.dumps, lines)).encode()))
    reader = TextReader(Words(), None, 0)  # type: ignore[arg-type]
    found = pack([path], reader, 8, 0, seed=3)
    assert found.tokens.shape == (1, 8)
    documents = {
        tuple(found.tokens[0][found.documents[0] == d].tolist()): found.kinds[kind]
        for d, kind in enumerate(found.kind_of)
        if (found.documents == d).any()
    }
    whole = {(1, 2, 3, 0): "code", (2, 1, 0): "some", (4, 0): "some"}
    assert sum(map(len, documents)) == 8
    assert all(any(w[: len(d)] == d and whole[w] == k for w in whole) for d, k in documents.items())
    assert pack([path], reader, 8, 0, seed=3).digest == found.digest
    with pytest.raises(FormatError, match="9 tokens, a window has 16"):
        pack([path], reader, 16, 0, seed=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": 1}', "line 2"),
        ("{", "line 2"),
        ('{"text": "a", "kind": 3}', "'kind'"),
        ('{"messages": []}', "no chat template"),
    ],
)
def test_lines_that_are_no_texts_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a"}\n' + text + "\n", encoding="utf-8")
    reader = TextReader(Words(), None, 0)  # type: ignore[arg-type]
    with pytest.raises(EdgeError, match=message):
        pack([path], reader, 8, 0, seed=0)


def some_data(n_windows: int, n: int = 16) -> Packed:
    zeros = np.zeros((n_windows, n), dtype=np.int32)
    return Packed(zeros, zeros, np.zeros(1, dtype=np.int16), ("all",))


def test_drawn_tokens_give_the_divergences_gradient_on_average(tmp_path: Path) -> None:
    """Over many positions of one distribution: the mean of the shares is p."""
    p = log_probs(4, 40).float()
    data = some_data(16, 64)
    cache = LogitCache(tmp_path, data, "teacher", 48, seed=1)
    cache.fill(lambda windows: p.expand(len(windows), 64, -1))
    log_q = torch.zeros(16, 64, 40, requires_grad=True)
    cache.cross_entropy(np.arange(16), log_q).mean().backward()
    assert log_q.grad is not None
    shares = -log_q.grad.sum((0, 1))
    # 49,152 draws: within 5 sigma each.
    sigma = (p.exp() * (1 - p.exp()) / (16 * 64 * 48)).sqrt()
    assert ((shares - p.exp()).abs() < 5 * sigma).all()
    assert 5 < cache.ids_per_token() < 40


def test_a_cache_goes_on_where_it_stopped_to_the_same_draws(tmp_path: Path) -> None:
    p = log_probs(5, 30).float()
    data = some_data(SHARD_WINDOWS + 3)
    asked: list[int] = []

    def teacher(windows: np.ndarray) -> torch.Tensor:
        asked.extend(windows.tolist())
        if len(asked) == SHARD_WINDOWS + 2:
            raise KeyboardInterrupt
        return p.expand(len(windows), 16, -1)

    cache = LogitCache(tmp_path / "a", data, "teacher", 8, seed=1)
    with pytest.raises(KeyboardInterrupt):
        cache.fill(teacher)
    cache.fill(teacher)
    assert len(asked) == SHARD_WINDOWS + 2 + 3  # the first shard was not drawn again
    whole = LogitCache(tmp_path / "b", data, "teacher", 8, seed=1)
    whole.fill(lambda windows: p.expand(len(windows), 16, -1))
    windows = np.array([0, SHARD_WINDOWS + 2])
    log_q = log_probs(6, 2, 16, 30)
    assert torch.equal(cache.cross_entropy(windows, log_q), whole.cross_entropy(windows, log_q))
    with pytest.raises(FormatError, match="that the model has not"):
        cache.cross_entropy(windows, log_q[..., :3])
    shard = next((tmp_path / "a").rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(FormatError, match="made again"):
        LogitCache(tmp_path / "a", data, "teacher", 8, seed=1).cross_entropy(
            np.arange(70)[[0, 66]], log_q
        )


RECIPE = """
student = "model"
out = "out"
[data]
files = ["a.jsonl"]
[schedule]
steps = 10
"""


def test_a_recipe_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE, encoding="utf-8")
    recipe = read_train_recipe(path)
    assert recipe.name == "small"
    assert recipe.student == tmp_path / "model"
    assert recipe.data.files == (tmp_path / "a.jsonl",)
    assert recipe.work_dir == tmp_path / "out.work"
    assert recipe.optimizer.rate == 1e-3
    assert recipe.digest == read_train_recipe(path).digest
    path.write_text(RECIPE.replace("steps = 10", "steps = 11"), encoding="utf-8")
    assert recipe.digest != read_train_recipe(path).digest


def test_the_recipes_of_the_documentation_are_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "TRAINING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- recipe: .*? -->\n```toml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "recipe.toml"
    learn = []
    for block in blocks:
        path.write_text(block, encoding="utf-8")
        learn.append(read_train_recipe(path).learn)
    assert learn == ["weights", "codes"]
    # The first has every key of its tables but decay, which is of wsd.
    keys = set(re.findall(r"^(\w+) =", blocks[0], re.MULTILINE))
    for table in (DataOptions, LossOptions, OptimizerOptions, ScheduleOptions, BatchOptions):
        assert {f.name for f in fields(table)} - keys <= {"decay", "scale_rate"}


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        ('out = "out"', 'out = "out"\nspeed = 3', FormatError, "'speed' not known"),
        ("steps = 10", 'steps = "many"', FormatError, r"\[schedule\]: 'steps' must be a number"),
        ("steps = 10", "steps = 0", InvalidArgumentError, r"\[schedule\]: steps is 1 to"),
        ("steps = 10", "", FormatError, "needs 'steps'"),
        ('files = ["a.jsonl"]', "files = []", FormatError, "list of paths"),
        ("[schedule]\nsteps = 10", "", FormatError, r"no \[schedule\]"),
        ('out = "out"', 'out = "out.edge"', InvalidArgumentError, "weights go to a directory"),
        ('out = "out"', 'out = "out"\nlearn = "all"', InvalidArgumentError, "'all' is not known"),
        ('out = "out"', 'out = "out"\nteacher = "t"', InvalidArgumentError, "uses no teacher"),
        ("[data]", "loss = 3\n[data]", FormatError, r"\[loss\]: not a table"),
        (
            "[schedule]",
            '[loss]\nteacher = 1\ndivergence = "js"\n[schedule]',
            InvalidArgumentError,
            "name one",
        ),
        ("[schedule]", "[loss]\nnext_token = nan\n[schedule]", InvalidArgumentError, "0 or more"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(
    old: str, new: str, kind: type[EdgeError], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.toml"
    assert old in RECIPE
    path.write_text(RECIPE.replace(old, new), encoding="utf-8")
    with pytest.raises(kind, match=message) as raised:
        read_train_recipe(path)
    assert "bad.toml" in str(raised.value)
