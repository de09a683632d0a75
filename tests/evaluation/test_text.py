"""Windows, scores and perplexity on real models, against float64 oracles written here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm.errors import ContextOverflowError, FormatError, InvalidArgumentError, UnsupportedError
from edgellm.evaluation import (
    EvaluatedModel,
    Reference,
    TextEvaluation,
    WindowRule,
    cut_windows,
    evaluate_texts,
    read_text,
    text_of,
    windows_for,
)
from golden.measures import mean_kl

BABY = "babyllama-tok105"
# F16 storage of weights and KV: 8e-5 and 4e-5 measured, E4_16 is 3e-2 away.
PPL_TOLERANCE = 3e-4


def evaluate(
    path: Path, text: Path, against: Path | None = None, rule: WindowRule | None = None
) -> TextEvaluation:
    rule = rule or WindowRule(256)
    with EvaluatedModel(path) as model:
        windows = windows_for(model, [read_text(text)], rule, None)
        if against is None:
            return evaluate_texts(model, windows)
        with Reference(against) as reference:
            return evaluate_texts(model, windows, reference)


def log_softmax_oracle(row: np.ndarray) -> list[float]:
    """One row, with exact sums."""
    top = max(map(float, row))
    total = math.log(math.fsum(math.exp(float(x) - top) for x in row))
    return [float(x) - top - total for x in row]


@pytest.mark.parametrize("at", [0, 1])
def test_perplexity_is_the_expected_one(at, make_edge, shared_data):
    directory = shared_data / "models" / BABY
    expected = json.loads((directory / "expected" / "ppl.json").read_text())["results"][at]
    text = (shared_data / expected["text"]).read_text(encoding="utf-8")[: expected["characters"]]
    rule = WindowRule(expected["window"], n_skip=1, bos="prepend")
    with EvaluatedModel(make_edge(BABY, "F16")) as model:
        found = evaluate_texts(model, [cut_windows(model, text_of("text", text), rule)])
    assert found.total.n_scored_tokens == expected["tokens_scored"]
    assert found.total.perplexity.value == pytest.approx(
        expected["ppl_per_token"], rel=PPL_TOLERANCE
    )


def test_every_figure_equals_a_plain_float64_oracle(make_edge, stories):
    paths = make_edge(BABY, "E4_16"), make_edge(BABY, "F16")
    found = evaluate(paths[0], stories, paths[1], WindowRule(256, max_scored_tokens=600))
    with (
        edgellm.load(paths[0], kv="F16") as model,
        edgellm.load(paths[1], kv="F16") as reference,
    ):
        tokens = model.tokenize(stories.read_text(encoding="utf-8"))
        bos = model.tokenize("")[0]
        ids = [[bos, *tokens[at + 1 : at + 256]] for at in range(0, 5 * 256, 256)]
        rows = [(model.logits(window), reference.logits(window)) for window in ids]
    nll, ref_nll, kl, same, change = [], [], [], [], []
    for window, (ours, theirs) in zip(ids, rows, strict=True):
        for at in range(128, 255):  # logits at `at` say what comes at at + 1, from 129 on
            q, p = log_softmax_oracle(ours[at]), log_softmax_oracle(theirs[at])
            target = window[at + 1]
            nll.append(-q[target])
            ref_nll.append(-p[target])
            kl.append(math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
            same.append(q.index(max(q)) == p.index(max(p)))
            change.append(math.exp(q[target]) - math.exp(p[target]))
    n = len(nll)
    assert found.total.n_scored_tokens == n == 127 * len(ids)
    assert found.total.nll.value == pytest.approx(math.fsum(nll) / n, rel=1e-12)
    assert found.total.perplexity.value == pytest.approx(math.exp(math.fsum(nll) / n), rel=1e-12)
    against = found.total.against
    ratio = math.exp((math.fsum(nll) - math.fsum(ref_nll)) / n)
    assert against.perplexity_ratio.value == pytest.approx(ratio, rel=1e-12)
    assert against.kl.mean.value == pytest.approx(math.fsum(kl) / n, rel=1e-10)
    assert against.kl.p99_9 == pytest.approx(np.quantile(kl, 0.999), rel=1e-9)
    assert against.kl.median == pytest.approx(np.quantile(kl, 0.5), rel=1e-9)
    assert against.top1_agreement.value == pytest.approx(sum(same) / n, rel=1e-12)
    assert against.mean_p_change.value == pytest.approx(math.fsum(change) / n, rel=1e-9)
    rms = math.sqrt(math.fsum(c * c for c in change) / n)
    assert against.rms_p_change == pytest.approx(rms, rel=1e-9)
    tail = np.concatenate([theirs[128:255] for _, theirs in rows])
    head = np.concatenate([ours[128:255] for ours, _ in rows])
    assert against.kl.mean.value == pytest.approx(mean_kl(tail, head), rel=1e-9)


def test_a_model_against_itself_gives_exactly_zero(make_edge, stories):
    path = make_edge(BABY, "E4_16")
    against = evaluate(path, stories, path).total.against
    assert (against.kl.mean.value, against.kl.max, against.rms_p_change) == (0, 0, 0)
    assert (against.perplexity_ratio.value, against.top1_agreement.value) == (1, 1)
    assert (against.perplexity_ratio.low, against.perplexity_ratio.high) == (1, 1)


def test_more_bits_are_closer(make_edge, stories):
    reference = make_edge(BABY, "F16")
    e4, e8 = (
        evaluate(make_edge(BABY, format), stories, reference).total.against
        for format in ("E4_16", "E8_32")
    )
    assert e8.kl.mean.high < e4.kl.mean.low
    assert e8.top1_agreement.value > e4.top1_agreement.value
    assert e4.kl.mean.low < e4.kl.mean.value < e4.kl.mean.high
    assert 0 < e8.kl.mean.value < 1e-3


def test_threads_and_limits_change_no_score(make_edge, stories):
    path = make_edge(BABY, "E4_16")
    whole = evaluate(path, stories).scored[0].scores.nll
    limited = evaluate(path, stories, rule=WindowRule(256, max_scored_tokens=300)).scored[0]
    assert limited.windows.n_windows == 3  # 127 each, rounded up
    assert (limited.scores.nll == whole[:3]).all()
    with EvaluatedModel(path, threads=1) as model:
        windows = windows_for(model, [read_text(stories)], WindowRule(256), None)
        assert (evaluate_texts(model, windows).scored[0].scores.nll == whole).all()


def test_several_texts_are_summed_up_token_by_token(make_edge, stories, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the cat sat on the mat and looked at the moon. " * 40, encoding="utf-8")
    with EvaluatedModel(make_edge(BABY, "E4_16")) as model:
        texts = [read_text(stories), read_text(other)]
        found = evaluate_texts(model, windows_for(model, texts, WindowRule(256), None))
        with pytest.raises(InvalidArgumentError, match="given twice"):
            windows_for(model, [texts[0], texts[0]], WindowRule(256), None)
    first, second, total = found.figures
    n = first.n_scored_tokens + second.n_scored_tokens
    assert total.n_scored_tokens == n
    wanted = first.nll.value * first.n_scored_tokens + second.nll.value * second.n_scored_tokens
    assert total.nll.value == pytest.approx(wanted / n, rel=1e-12)


def test_windows_follow_the_convention(make_edge):
    content = "abcdefghij" * 5
    with EvaluatedModel(make_edge(BABY, "E4_16")) as model:
        ids = model.tokenizer.encode(content, bos=True)
        bos = ids[0]
        windows = cut_windows(model, text_of("t", content), WindowRule(8))
        assert windows.first_scored == 5
        assert windows.n_scored == 3  # as llama.cpp: n_ctx - n_ctx // 2 - 1
        assert windows.ids.tolist() == [[bos, *ids[i + 1 : i + 8]] for i in range(0, 41, 8)]
        assert windows.n_left_out == len(ids) - 8 * windows.n_windows
        plain = cut_windows(model, text_of("t", content), WindowRule(8, bos="none"))
        assert plain.ids[0].tolist() == ids[1:9]
        before = cut_windows(model, text_of("t", content), WindowRule(8, 1, "prepend"))
        assert before.ids[1].tolist() == [bos, *ids[8:15]]
        with pytest.raises(InvalidArgumentError, match="lower --n-ctx"):
            cut_windows(model, text_of("t", "short"), WindowRule(64))
        too_long = cut_windows(model, text_of("t", content * 20), WindowRule(512))
        with pytest.raises(ContextOverflowError, match="256"):
            evaluate_texts(model, [too_long])


@pytest.mark.parametrize("bad", [{"n_ctx": 1}, {"n_skip": 0}, {"n_skip": 512}, {"bos": "maybe"}])
def test_a_rule_out_of_range_is_refused(bad):
    with pytest.raises(InvalidArgumentError):
        WindowRule(**bad)


def test_texts_that_are_none_are_refused(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(FormatError, match="not UTF-8 at byte 3"):
        read_text(tmp_path / "latin")
    with pytest.raises(FormatError, match="cannot read"):
        read_text(tmp_path / "missing")
    with pytest.raises(FormatError, match="regular file"):
        read_text(tmp_path)


def test_two_vocabularies_are_refused_by_name(make_edge, stories, tiny_edge):
    with pytest.raises(UnsupportedError, match="logits per token: 105 and 258") as caught:
        evaluate(make_edge(BABY, "E4_16"), stories, tiny_edge)
    assert caught.value.code == "vocabulary_mismatch"


def test_a_renamed_token_is_found(make_edge, tmp_path, shared_data, stories):
    from edgellm.converters import convert

    source = shared_data / "models" / BABY
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (copy / name).write_bytes((source / name).read_bytes())
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    a, b = sorted((token for token in vocab if token in "ab"), key=vocab.get)
    first = vocab[a]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    convert(copy, tmp_path / "other.edge")
    with pytest.raises(UnsupportedError, match=f"differ at token {first}: '{a}' and '{b}'"):
        evaluate(make_edge(BABY, "E4_16"), stories, tmp_path / "other.edge")
