"""Items of last-word cloze, how answers are judged, and the area under a curve."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgellm
from edgellm.errors import InvalidArgumentError
from edgellm.evaluation.cloze import CONTEXT_CHARS, ClozeItem, answer_cloze, auroc, cloze_items

FILLER = "The river was wide and the boat was old, and nobody in the village knew its name. " * 9
TEXT = FILLER + "So they sold the boat. Then they bought a horse. And they\nnever saw the river."


def test_items_are_sentences_whose_last_word_was_there_before():
    items = cloze_items([TEXT], 100)
    words = [item.word for item in items]
    assert "boat" in words
    assert "river" in words
    assert "horse" not in words
    whole = " ".join(TEXT.split())
    for item in items:
        assert 200 <= len(item.prompt) <= CONTEXT_CHARS
        assert f"{item.prompt} {item.word}" in whole
        assert item.word in item.prompt
    assert cloze_items([TEXT], 2) == items[:2]
    assert sorted(words) == sorted(one.word for one in cloze_items([TEXT], 100, seed=1))
    with pytest.raises(InvalidArgumentError, match="no sentence"):
        cloze_items(["Too short."], 5)


def test_answers_are_judged_by_the_word_that_the_model_says(demo_path):
    with edgellm.load(demo_path) as model:
        prompt = "Once upon a time there was a little"
        said = model.generate(prompt, max_tokens=12).text.split()[0].strip(",.")
        right, wrong = answer_cloze(model, [ClozeItem(prompt, said), ClozeItem(prompt, "xylo")])
        ids = model.tokenize(prompt)
        (score,) = model.score(prompt, [f" {said}"])
    assert (right.word, right.is_right, wrong.is_right) == (said, True, False)
    assert right.n_tokens == len(ids) + len(score.token_ids)
    assert abs(right.probability - 2.718281828459045**score.logprob) < 1e-6
    assert 0 < right.probability <= right.mean_probability <= 1
    assert right.probability == wrong.probability
    assert right.spilled_energy <= right.most_spilled


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_counts_pairs(pairs):
    right = [score for score, is_right in pairs if is_right]
    wrong = [score for score, is_right in pairs if not is_right]
    scores, labels = [score for score, _ in pairs], [is_right for _, is_right in pairs]
    if not right or not wrong:
        with pytest.raises(InvalidArgumentError, match="no order"):
            auroc(scores, labels)
        return
    wins = [(a > b) + (a == b) / 2 for a, b in itertools.product(right, wrong)]
    assert abs(auroc(scores, labels) - sum(wins) / len(wins)) < 1e-12
