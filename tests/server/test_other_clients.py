"""Other people's clients, with their own calls. They are heavy: `make nightly` runs what is
installed (pip install --group clients), and says what is not."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgellm
from edgellm.options import EVALUATION_KV
from server.serving import Running, serving

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
QUESTION = "How do I show the current date?"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(models=("demo",)) as running:
        yield running


@pytest.fixture(scope="module")
def expected(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


def said(model: edgellm.Model, text: str = QUESTION, most: int = 24) -> str:
    asked = [{"role": "user", "content": text}]
    return model.create_chat_completion(asked, max_tokens=most)["choices"][0]["message"]["content"]


def test_llm(server: Running, expected: edgellm.Model, tmp_path: Path):
    pytest.importorskip("llm", reason="NOT TESTED: llm is not installed")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: demo\n  model_name: demo\n  api_base: {server.url}/v1\n", encoding="utf-8"
    )
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    for more in ([], ["--no-stream"]):
        command = [sys.executable, "-m", "llm", "-m", "demo", "-o", "max_tokens", "24", *more]
        run = subprocess.run(
            [*command, QUESTION], env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip() == said(expected)


def test_langchain(server: Running, expected: edgellm.Model):
    langchain = pytest.importorskip(
        "langchain_openai", reason="NOT TESTED: langchain-openai is not installed"
    )
    settings = {"base_url": f"{server.url}/v1", "api_key": "none", "model": "demo"}
    chat = langchain.ChatOpenAI(**settings, max_completion_tokens=24, temperature=0)
    assert chat.invoke(QUESTION).content == said(expected)
    assert "".join(str(one.content) for one in chat.stream(QUESTION)) == said(expected)
    both = asyncio.run(chat.abatch([QUESTION, "How do I list files?"]))
    assert [one.content for one in both] == [said(expected), said(expected, "How do I list files?")]
    schema = {"title": "Pet", "type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}}
    schema |= {"required": ["kind"], "additionalProperties": False}
    shaped = chat.with_structured_output(schema, method="json_schema").invoke("A pet, please")
    assert shaped["kind"] in ("cat", "dog")
    vectors = langchain.OpenAIEmbeddings(**settings, check_embedding_ctx_length=False)
    found = vectors.embed_documents(["a text"])
    assert found == [expected.embed("a text")[0].tolist()]


def test_instructor(server: Running):
    instructor = pytest.importorskip("instructor", reason="NOT TESTED: instructor is not installed")
    import openai
    from pydantic import BaseModel, Field

    class Person(BaseModel):
        name: str = Field(max_length=20)
        age: int = Field(ge=0, le=120)

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
        person = client.chat.completions.create(
            model="demo",
            response_model=Person,
            max_tokens=100,
            messages=[{"role": "user", "content": "A child in a story"}],
        )
    assert isinstance(person, Person)


def test_lm_evaluation_harness(expected: edgellm.Model):
    """Its local-completions and edgellm's own class of it give the same numbers."""
    pytest.importorskip("lm_eval", reason="NOT TESTED: lm_eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from edgellm.evaluation.lm_eval_model import EdgeLM

    own = EdgeLM("demo")
    pairs = [("The sky is", " blue"), ("Once upon a", " time"), ("To list files, run", " `ls`")]
    # The harness's way of asking: ids of context and continuation, cut by the model's tokenizer.
    requests = []
    for context, continuation in pairs:
        (score,) = expected.score(context, [continuation])
        before = expected.tokenize(context)
        requests.append(((context, continuation), before, score.token_ids))
    with serving(models=("demo",), load_options={"kv": EVALUATION_KV}) as server:
        remote = LocalCompletionsAPI(
            model="demo",
            base_url=f"{server.url}/v1/completions",
            tokenizer_backend=None,
            max_length=512,
        )
        # It asks only whether there is a tokenizer, and then sends ids as they are.
        remote.tokenizer, remote.tokenized_requests = expected, True
        remote_scores = remote._loglikelihood_tokens(requests, disable_tqdm=True)
    instances = [
        Instance("loglikelihood", {}, arguments=pair, idx=at) for at, pair in enumerate(pairs)
    ]
    for theirs, ours in zip(remote_scores, own.loglikelihood(instances), strict=True):
        # They add the tokens' numbers up in another way.
        assert math.isclose(theirs[0], ours[0], rel_tol=1e-14)
        assert theirs[1] == ours[1]
