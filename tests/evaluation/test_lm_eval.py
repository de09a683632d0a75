"""The model class in the real lm-evaluation-harness, offline, on a task made here."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import edgellm
from edgellm.errors import ContextOverflowError, InvalidArgumentError, UnsupportedError

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(
    not HAS_HARNESS, reason="NOT TESTED: lm_eval is not installed; pip install lm_eval"
)
pytestmark = pytest.mark.filterwarnings("default")  # the harness and its own requirements warn
DOCS = [
    {"q": "Once upon a time, there was a", "choices": ["little girl", "zqx vvk"], "gold": 0},
    {"q": "Lily went to the", "choices": ["!!!!", "park"], "gold": 1},
    {"q": "The cat sat on the", "choices": ["mat", "of of of"], "gold": 0},
]
CHOICE_TASK = """
task: edge_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
TEXT_TASK = """
task: edge_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{q}}}}"
metric_list:
  - metric: word_perplexity
"""
UNTIL_TASK = """
task: edge_until
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "x"
generation_kwargs: {{until: ["."], max_gen_toks: 12, do_sample: false}}
metric_list:
  - metric: exact_match
"""


@pytest.fixture(scope="module")
def harness_model(demo_path):
    from edgellm.evaluation.lm_eval_model import EdgeLM

    return EdgeLM(str(demo_path))


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=one) for one in arguments]


def log_prob(model: edgellm.Model, prompt: list[int], rest: list[int]) -> float:
    """In a fresh session, with exact sums."""
    rows = model.logits([*prompt, *rest]).astype(np.float64)
    total = 0.0
    for at, target in enumerate(rest, start=len(prompt)):
        row = rows[at - 1]
        total += row[target] - row.max() - math.log(math.fsum(np.exp(row - row.max())))
    return total


@needs_harness
def test_the_harness_runs_three_kinds_of_tasks(demo_path, tmp_path, monkeypatch):
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import lm_eval
    from lm_eval.tasks import TaskManager

    import edgellm.evaluation.lm_eval_model

    data = tmp_path / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS), encoding="utf-8")
    for name, task in (("c", CHOICE_TASK), ("t", TEXT_TASK), ("u", UNTIL_TASK)):
        (tmp_path / f"{name}.yaml").write_text(task.format(data=data), encoding="utf-8")
    names = ["edge_choices", "edge_rolling", "edge_until"]
    found = lm_eval.simple_evaluate(
        model="edgellm",
        model_args=f"model={demo_path},threads=2",
        tasks=names,
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    with edgellm.load(demo_path) as model:
        right = []
        for doc in DOCS:
            prompt = model.tokenize(doc["q"])
            rest = [model.tokenize(f"{doc['q']} {c}")[len(prompt) :] for c in doc["choices"]]
            scores = [log_prob(model, prompt, ids) for ids in rest]
            right.append(scores.index(max(scores)) == doc["gold"])
        texts = [model.generate(doc["q"], max_tokens=12, stop=".").text for doc in DOCS]
        totals = [log_prob(model, [0], model.tokenize(doc["q"])) for doc in DOCS]
    results = found["results"]
    assert results["edge_choices"]["acc,none"] == pytest.approx(sum(right) / len(DOCS))
    n_words = sum(len(doc["q"].split()) for doc in DOCS)
    wanted = math.exp(-sum(totals) / n_words)
    assert results["edge_rolling"]["word_perplexity,none"] == pytest.approx(wanted, rel=1e-9)
    said = {sample["doc"]["q"]: sample["resps"][0][0] for sample in found["samples"]["edge_until"]}
    assert [said[doc["q"]] for doc in DOCS] == texts


@needs_harness
def test_rolling_windows_score_every_token_once(harness_model, demo_path):
    text = "Once upon a time there was a cat. " * 100  # two contexts long
    (found,) = harness_model.loglikelihood_rolling(requests((text,)))
    with edgellm.load(demo_path) as model:
        ids = model.tokenize(text)
        n_ctx = model.info().n_ctx
        assert n_ctx < len(ids) < 2 * n_ctx
        wanted = log_prob(model, [0], ids[: n_ctx - 1])
        last = model.logits([0, *ids[: n_ctx - 1]])[-1].astype(np.float64)
        wanted += last[ids[n_ctx - 1]] - last.max()
        wanted -= math.log(math.fsum(np.exp(last - last.max())))
        window, n_rest = ids[-n_ctx - 1 : -1], len(ids) - n_ctx
        split = len(window) - n_rest + 1
        wanted += log_prob(model, window[:split], window[split:])
        last = model.logits(window)[-1].astype(np.float64)
        wanted += last[ids[-1]] - last.max() - math.log(math.fsum(np.exp(last - last.max())))
    assert found == pytest.approx(wanted, rel=1e-9)


@needs_harness
def test_prompts_that_are_too_long_are_cut_on_the_left_and_counted(harness_model, caplog):
    before = harness_model.n_truncated
    long = "the cat sat on the mat. " * 120
    scored = harness_model.loglikelihood(requests(("The sky is", " blue"), (long, " The")))
    assert all(p < 0 for p, _ in scored)
    assert harness_model.n_truncated == before + 1
    assert "cut on the left" in caplog.text
    (text,) = harness_model.generate_until(requests((long, {"until": ["."], "max_gen_toks": 5})))
    assert harness_model.n_truncated == before + 2
    assert "." not in text
    with pytest.raises(ContextOverflowError, match="max_gen_toks"):
        harness_model.generate_until(requests((long, {"max_gen_toks": 512})))


@needs_harness
def test_generation_arguments_are_honoured_or_refused():
    from edgellm.evaluation.lm_eval_model import generate_options

    assert generate_options({"until": "x", "max_new_tokens": 7}).stop == ("x",)
    assert generate_options({"do_sample": False, "temperature": 0.7}).temperature == 0
    assert generate_options({"do_sample": True, "top_p": 0.9, "seed": 3}).temperature == 1
    assert generate_options({"temperature": 0.5}).temperature == 0.5
    with pytest.raises(InvalidArgumentError, match="num_beams"):
        generate_options({"num_beams": 4})


@needs_harness
def test_the_harness_default_device_is_said_to_be_unused(caplog):
    from edgellm.evaluation.lm_eval_model import EdgeLM

    EdgeLM("demo", device="cuda:0")
    assert "runs on the CPU, not on cuda:0" in caplog.text


@pytest.mark.skipif(HAS_HARNESS, reason="lm_eval is installed")
def test_without_the_harness_the_error_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(UnsupportedError, match="pip install lm_eval"):
        import edgellm.evaluation.lm_eval_model  # noqa: F401
