"""Answers of a given shape, on the demo model and through what callers call."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator

import jsonschema
import numpy as np
import pytest

import edgellm
from command_line import data_of
from command_line import edgellm as run_edgellm

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["tea", "cake"]}, "maxItems": 3},
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
AS_JSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
PROMPT = "Once upon a time there was a child. About the child: "


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def json_of(schema: dict, **more: object) -> dict:
    return {"type": "json_schema", "schema": schema, **more}


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 7, "top_k": 40}])
def test_json_of_a_schema_validates(demo, sampling):
    answer = demo.generate(PROMPT, max_tokens=200, response_format=AS_JSON, **sampling)
    assert answer.finish_reason == "stop"
    jsonschema.validate(json.loads(answer.text), PERSON)


def test_any_json_object(demo):
    answer = demo.generate(PROMPT, max_tokens=80, response_format={"type": "json_object"})
    assert answer.finish_reason == "stop"
    assert isinstance(json.loads(answer.text), dict)


def test_a_regular_expression_matches_whole_answers(demo):
    regex = r"(Lily|Tom) is [1-9][0-9]? years old\."
    for seed in range(4):
        answer = demo.generate(
            PROMPT,
            max_tokens=60,
            temperature=1.5,
            seed=seed,
            response_format={"type": "regex", "regex": regex},
        )
        assert answer.finish_reason == "stop"
        assert re.fullmatch(regex, answer.text)


def test_a_lark_grammar(demo):
    grammar = 'start: greeting (", " greeting)* "!"\ngreeting: "hello" | "good day"\n'
    wanted = {"type": "grammar", "grammar": grammar}
    answer = demo.generate(PROMPT, max_tokens=60, temperature=1, seed=3, response_format=wanted)
    if answer.finish_reason == "stop":
        assert re.fullmatch(r"(hello|good day)(, (hello|good day))*!", answer.text)
    else:  # max_tokens were there: it ends anywhere in a greeting
        last = re.sub(r"^((hello|good day), )*", "", answer.text)
        begun = ("hello!", "good day!", "hello, ", "good day, ")
        assert any(one.startswith(last) for one in begun)


def test_text_is_free(demo):
    free = demo.generate(PROMPT, max_tokens=12)
    assert demo.generate(PROMPT, max_tokens=12, response_format={"type": "text"}).token_ids == (
        free.token_ids
    )


def test_the_same_answer_whoever_asks(demo, demo_path, tmp_path):
    arguments = {"max_tokens": 120, "temperature": 0.8, "seed": 5, "repetition_penalty": 1.1}
    one = demo.generate(PROMPT, response_format=AS_JSON, **arguments)
    with demo.stream(PROMPT, response_format=AS_JSON, **arguments) as stream:
        assert "".join(token.text for token in stream) == one.text
    prompts = [PROMPT, "The dog. ", PROMPT]
    batch = demo.generate_batch(prompts, response_format=AS_JSON, **arguments)
    assert [batch[0].token_ids, batch[2].token_ids] == [one.token_ids] * 2
    samples = demo.generate_n(PROMPT, 2, response_format=AS_JSON, **arguments)
    assert samples[0].token_ids == one.token_ids
    for answer in (*batch, *samples):
        jsonschema.validate(json.loads(answer.text), PERSON)
    file = tmp_path / "person.json"
    file.write_text(json.dumps(PERSON))
    flags = ["-n", 120, "--temperature", 0.8, "--seed", 5, "--repetition-penalty", 1.1]
    run = run_edgellm("run", demo_path, PROMPT, "--schema", file, *flags, "--json", cwd=tmp_path)
    assert data_of(run, "run")["text"] == one.text


def test_forced_tokens_take_no_steps_of_their_own_and_logprobs_change_no_token(demo):
    with demo.stream(PROMPT, max_tokens=200, response_format=AS_JSON) as stream:
        tokens = []
        for token in stream:
            tokens.append(token)
            if stream.session is not None:
                n_steps = stream.session.stats["n_steps"]
    forced = [token for token in tokens if token.forced]
    assert stream.stats.forced_tokens == len(forced) > 10
    # One for the prompt with what is forced at its end, and one for each choice after it.
    assert n_steps <= len(tokens) - len(forced) + 1
    asked = demo.generate(PROMPT, max_tokens=200, response_format=AS_JSON, logprobs=2)
    assert asked.token_ids == [token.id for token in tokens]
    for token, logprob, best in zip(tokens, asked.logprobs, asked.top_logprobs, strict=True):
        assert logprob < 0
        assert len(best) == 2
        assert token.logprob == (0 if token.forced else logprob)


def test_with_compressed_prompts_with_asyncio_and_with_speculation(demo, demo_path):
    wanted = {"max_tokens": 200, "response_format": AS_JSON}
    compressed = demo.generate(PROMPT * 8, compress=2, **wanted)
    jsonschema.validate(json.loads(compressed.text), PERSON)
    alone = demo.generate(PROMPT, **wanted)
    assert asyncio.run(demo.agenerate(PROMPT, **wanted)).token_ids == alone.token_ids
    with edgellm.load(demo_path, speculate="always") as speculating:
        assert speculating.generate(PROMPT, **wanted).token_ids == alone.token_ids


def test_chats_go_on_after_answers_and_are_saved(demo, tmp_path):
    with demo.chat(template="chatml") as chat:
        first = chat.send("Who is it?", max_tokens=120, response_format=AS_JSON)
        jsonschema.validate(json.loads(first.text), PERSON)
        assert chat.turns[0].reply == first.text
        assert list(chat.turns[0].reply_ids) == first.token_ids
        chat.save(tmp_path / "saved")
        again = chat.send("And who else?", max_tokens=120, response_format=AS_JSON)
        assert again.stats.reused_tokens > 0
    with demo.restore(tmp_path / "saved", template="chatml") as chat:
        assert chat.send("And who else?", max_tokens=120, response_format=AS_JSON).text == (
            again.text
        )


def test_rules_hold_within_the_grammar(demo):
    letters = {"type": "regex", "regex": "[ab]{8}"}
    ids = {text: demo.tokenize("x" + text, bos=False)[-1] for text in "ab"}
    banned = demo.generate(
        PROMPT, max_tokens=8, response_format=letters, logit_bias=dict.fromkeys(ids.values(), 50.0)
    )
    assert re.fullmatch("[ab]{8}", banned.text)
    with pytest.raises(edgellm.InvalidArgumentError, match="no token is left"):
        demo.generate(
            PROMPT,
            max_tokens=8,
            response_format={"type": "regex", "regex": "[^\\x00-\\x7F]|[a-z]"},
            logit_bias=dict.fromkeys(range(demo.info().n_vocab - 1), float("-inf")),
        )


def test_ends_come_only_where_the_grammar_allows_them(demo):
    comma = demo.tokenize(",", bos=False)
    answer = demo.generate(PROMPT, max_tokens=200, response_format=AS_JSON, stop_ids=comma)
    jsonschema.validate(json.loads(answer.text), PERSON)
    stopped = demo.generate(PROMPT, max_tokens=200, response_format=AS_JSON, stop=['"age"'])
    assert stopped.finish_reason == "stop"
    assert stopped.text.endswith(", ")


def test_an_answer_that_runs_out_of_tokens_is_closed_unless_it_may_be_cut(demo):
    rambling = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    closed = demo.generate(PROMPT, max_tokens=40, response_format=json_of(rambling))
    assert closed.finish_reason == "stop"
    jsonschema.validate(json.loads(closed.text), rambling)
    cut = demo.generate(PROMPT, max_tokens=4, response_format=json_of(rambling, finish=False))
    assert cut.finish_reason == "length"


def test_of_a_batch_the_one_that_fails_ends_alone(demo):
    greedy = {"max_tokens": 30, "response_format": {"type": "regex", "regex": "[a-z ]+"}}
    (end,) = demo.info().eos_ids[:1]
    banned = {i: float("-inf") for i in range(demo.info().n_vocab) if i != end}
    with pytest.raises(edgellm.InvalidArgumentError, match="no token is left"):
        demo.generate_batch([PROMPT, "x"], logit_bias=banned, **greedy)
    assert demo.generate(PROMPT, **greedy).text


def test_masks_are_checked(demo_path):
    model = edgellm._native.Model.load(demo_path)
    session = edgellm._native.Session(model, 8)
    session.append([1, 2])
    session.run(1e9)
    params = edgellm._native.SamplerParams()
    n_words = -(-model.n_vocab // 32)
    words = np.zeros(n_words, np.uint32)
    words[1] = 0b100
    chosen, logprob = session.sample(params, allowed=words)
    assert chosen == 34
    assert logprob == dict(session.top_logprobs(model.n_vocab))[34]
    for bad in (words * 0, words[1:], np.zeros(n_words + 1, np.uint32)):
        with pytest.raises(edgellm.InvalidArgumentError):
            session.sample(params, allowed=bad)
        assert edgellm._native.sample_batch([session], [params], [2], [bad]) == [None]
    with pytest.raises(edgellm.InvalidArgumentError, match="2 allowed"):
        edgellm._native.sample_batch([session], [params], [2], [words, words])
    with pytest.raises(ValueError, match="one dimension"):
        session.sample(params, allowed=words[None])


DEEP: dict = {"type": "integer"}
for _ in range(80):
    DEEP = {"type": "array", "items": DEEP}
CHAIN = "".join(f"r{n}: r{n + 1}\n" for n in range(4000))
HOSTILE = {
    "deep": (json_of(DEEP), "deeper than 64"),
    "long": (json_of({"enum": ["x" * (1 << 20)]}), "bytes"),
    "not json": (json_of({"const": float("nan")}), "no JSON"),
    "no schema": ({"type": "json_schema"}, "schema"),
    "type": ({"type": "xml"}, "xml"),
    "extra": ({"type": "json_object", "schema": {}}, "schema"),
    "mapping": (["json"], "mapping"),
    "surrogate": ({"type": "regex", "regex": "\ud800"}, "surrogate"),
    "strict": (json_of({}, strict="yes"), "strict"),
    "regex": ({"type": "regex", "regex": "("}, "regex"),
    "look-around": ({"type": "regex", "regex": "(?!a)b"}, "look-around"),
    "endless": (
        json_of({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        "complex",
    ),
    "long regex": ({"type": "regex", "regex": "a?" * 2500}, "bytes"),
    "chain": ({"type": "grammar", "grammar": "start: r0\n" + CHAIN}, "bytes"),
    "many patterns": (json_of({"patternProperties": {"a" * n: {} for n in range(40)}}), "40"),
    "recursion": (json_of({"$ref": "#"}), "nothing satisfies"),
    "branching": (json_of({"allOf": [{"anyOf": [{"const": 1}] * 50}] * 50}), "complex"),
    "lark": ({"type": "grammar", "grammar": "start: " + "(" * 60_000}, "response_format"),
    "keyword": (json_of({"type": "array", "uniqueItems": True}), "uniqueItems"),
    "remote": (json_of({"$ref": "http://localhost/schema"}), "response_format"),
    "impossible": (json_of({"type": "string", "minLength": 5, "maxLength": 2}), "response_format"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_formats_are_refused(demo, name):
    wanted, what = HOSTILE[name]
    with pytest.raises(edgellm.EdgeError, match=f"(?s)response_format.*{what}|{what}") as refused:
        demo.generate(PROMPT, max_tokens=8, response_format=wanted)
    assert isinstance(refused.value, edgellm.InvalidArgumentError | edgellm.UnsupportedError)
    assert len(str(refused.value)) < 1000


def test_what_cannot_be_enforced_is_left_out_where_the_caller_says_so(demo):
    schema = {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "maxItems": 3}
    answer = demo.generate(PROMPT, max_tokens=60, response_format=json_of(schema, strict=False))
    assert isinstance(json.loads(answer.text), list)


def test_without_llguidance_there_is_a_hint(demo_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with (
        edgellm.load(demo_path) as model,
        pytest.raises(edgellm.UnsupportedError, match=r"pip install 'edgellm\[grammar\]'"),
    ):
        model.generate(PROMPT, max_tokens=8, response_format=AS_JSON)


def test_flags_of_the_command_line_exclude_each_other_and_name_bad_files(demo_path, tmp_path):
    both = run_edgellm("run", demo_path, "x", "--regex", "a", "--json-object", cwd=tmp_path)
    assert both.returncode != 0
    assert "exclude each other" in both.stderr
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    bad = run_edgellm("run", demo_path, "x", "--schema", broken, cwd=tmp_path)
    assert bad.returncode != 0
    assert "broken.json" in bad.stderr
    assert "Traceback" not in bad.stderr
