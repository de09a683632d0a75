"""Every route, as a plain HTTP client sees it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

from edgellm.testing import FakeModel
from server.serving import Running, chat, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(FakeModel("Hello there!"), max_body=100_000) as running:
        yield running


def test_health_models_and_page(server):
    assert server.ask("GET", "/health")[::2] == (200, {"status": "ok", "models": ["fake"]})
    status, _, models = server.ask("GET", "/v1/models")
    assert status == 200
    assert [one["id"] for one in models["data"]] == ["fake"]
    assert server.ask("GET", "/v1/models/fake")[2]["object"] == "model"
    for path, kind in (
        ("/", "html"),
        ("/static/app.js", "javascript"),
        ("/static/style.css", "css"),
    ):
        status, headers, text = server.ask("GET", path)
        assert status == 200
        assert kind in headers["content-type"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "http" not in re.sub(r"https?://www\.w3\.org", "", text)  # nothing from elsewhere
    page = server.ask("GET", "/")[2]
    assert re.findall(r"<script(?![^>]*\ssrc=)|\son\w+=|<style|\sstyle=|javascript:", page) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/static/../app.py", 404, "not_found"),
        ("GET", "/static/%2e%2e", 404, "not_found"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_an_error_object(server, method, path, status, code):
    found, _, body = server.ask(method, path)
    assert (found, body["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/chat/completions", b"{", 400, "json_syntax"),
        ("/v1/chat/completions", b"\xff\xfe", 400, "json_syntax"),
        ("/v1/chat/completions", b"[]", 400, "json_type"),
        ("/v1/chat/completions", b"[" * 90_000, 400, "json_depth"),
        ("/v1/chat/completions", b" " * 100_001, 413, "body_too_large"),
        ("/v1/chat/completions", {}, 400, "invalid_argument"),
        ("/v1/chat/completions", chat(model="x"), 404, "model_not_found"),
        ("/v1/chat/completions", chat(model=5), 400, "invalid_argument"),
        ("/v1/chat/completions", chat(stream="yes"), 400, "invalid_argument"),
        ("/v1/chat/completions", chat(n=0), 400, "invalid_argument"),
        ("/v1/chat/completions", chat("a" * 5000), 400, "context_length_exceeded"),
        ("/v1/completions", {"prompt": []}, 400, "invalid_argument"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 5000}, 400, "context_length_exceeded"),
        ("/v1/embeddings", {"input": []}, 400, "invalid_argument"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "x"}, 400, "invalid_argument"),
        ("/v1/embeddings", {"input": "a", "dimensions": 3}, 400, "invalid_argument"),
        ("/v1/embeddings", {"input": [999_999]}, 400, "token_out_of_range"),
        ("/v1/responses", {}, 400, "invalid_argument"),
        ("/v1/responses", {"input": "a", "previous_response_id": "x"}, 400, "invalid_argument"),
        ("/v1/responses", {"input": [{"type": "image"}]}, 400, "invalid_argument"),
    ],
)
def test_what_is_wrong_is_an_error_object(server, path, body, status, code):
    found, _, answer = server.ask("POST", path, body)
    assert (found, answer["error"]["code"]) == (status, code), answer
    assert answer["error"]["message"]
    assert server.engine.slots.n_taken == 0


def test_embeddings_in_both_encodings(server):
    model = FakeModel()
    expected = model.embed(["a", "bc"])
    asked = {"model": "fake", "input": ["a", "bc"]}
    plain = server.ask("POST", "/v1/embeddings", asked)[2]
    assert np.array_equal(np.array([one["embedding"] for one in plain["data"]], "f4"), expected)
    assert plain["usage"]["prompt_tokens"] == 3
    packed = server.ask("POST", "/v1/embeddings", {**asked, "encoding_format": "base64"})[2]
    raw = b"".join(base64.b64decode(one["embedding"]) for one in packed["data"])
    assert np.array_equal(np.frombuffer(raw, "<f4"), expected.ravel())
    ids = server.ask("POST", "/v1/embeddings", {"input": [[97], [98, 99]]})[2]
    assert [one["embedding"] for one in ids["data"]] == [one["embedding"] for one in plain["data"]]


def test_streams_are_events_that_end(server):
    status, headers, text = server.ask("POST", "/v1/chat/completions", chat(stream=True))
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    assert text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    said = "".join(c["delta"].get("content", "") for one in chunks for c in one["choices"])
    assert said == "Hello there!"
    text = server.ask("POST", "/v1/responses", {"input": "Hi", "stream": True})[2]
    names = re.findall(r"^event: (.*)$", text, re.MULTILINE)
    assert (names[0], names[-1]) == ("response.created", "response.completed")
    numbers = [int(n) for n in re.findall(r'"sequence_number": (\d+)', text)]
    assert numbers == list(range(len(names)))


def test_metrics_count_what_went_on():
    with serving(FakeModel("Hello there!")) as server:
        for _ in range(3):
            server.ask("POST", "/v1/chat/completions", chat(n=2))
        server.ask("POST", "/v1/chat/completions", {})
        status, headers, text = server.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['edgellm_requests_total{route="/v1/chat/completions",status="200"}'] == "3"
    assert values['edgellm_requests_total{route="/v1/chat/completions",status="400"}'] == "1"
    n_tokens = 3 * 2 * (len("Hello there!") + 1)
    assert values['edgellm_tokens_total{kind="generated"}'] == str(n_tokens)
    assert values["edgellm_time_to_first_token_seconds_count"] == "6"
    assert values["edgellm_inter_token_seconds_count"] == str(n_tokens - 6)
    assert values['edgellm_inter_token_seconds_bucket{le="+Inf"}'] == str(n_tokens - 6)
    assert values["edgellm_texts"] == "0"
    assert values['edgellm_kv_bytes{model="fake",kind="used"}'] == "0"
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    names = {re.sub(r"_(bucket|sum|count)$", "", key.partition("{")[0]) for key in values}
    assert names <= helped | {name + "_total" for name in helped}
