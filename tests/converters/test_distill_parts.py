"""Losses, schedules, packing, the cache of drawn tokens, and recipes of training."""

from __future__ import annotations

import itertools
import json
import lzma
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from edgellm.converters.distill.data import Packed, TextReader, pack, step_windows
from edgellm.converters.distill.logit_cache import SHARD_WINDOWS, LogitCache
from edgellm.converters.distill.losses import DIVERGENCE, hidden_distance, mean_of, next_token
from edgellm.converters.distill.recipe import ScheduleOptions, read_train_recipe
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
    data = some_data(64, 64)
    cache = LogitCache(tmp_path, data, "teacher", 48, seed=1)
    cache.fill(lambda windows: p.expand(len(windows), 64, -1))
    log_q = torch.zeros(64, 64, 40, requires_grad=True)
    cache.cross_entropy(np.arange(64), log_q).mean().backward()
    assert log_q.grad is not None
    shares = -log_q.grad.sum((0, 1))
    # 196,608 draws: within 5 sigma each.
    sigma = (p.exp() * (1 - p.exp()) / (64 * 64 * 48)).sqrt()
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
