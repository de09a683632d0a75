"""Metrics of the machine, and spans for who traces."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from edgellm.results import Stats
from edgellm.server.machine import Gpus, expert_gauges, read_speed, weight_bytes
from edgellm.server.metrics import Metrics
from edgellm.testing import FakeModel
from server.serving import chat, serving


def values_of(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_read_bandwidth_of_a_text_that_ran_alone(demo_path):
    with serving(models=("demo",)) as server:
        asked = {"prompt": "Once upon a time", "max_tokens": 24}
        assert "edgellm_read_bytes_per_second" not in values_of(server.ask("GET", "/metrics")[2])
        assert server.ask("POST", "/v1/completions", asked)[0] == 200
        found = values_of(server.ask("GET", "/metrics")[2])
        again = values_of(server.ask("GET", "/metrics")[2])
        stats = server.engine.metrics.last_alone["demo"]
    used = found['edgellm_read_bytes_per_second{model="demo"}']
    n_steps = 23 - stats.accepted_tokens
    expected = weight_bytes(demo_path) * n_steps * stats.tokens_per_s / 23
    assert used == pytest.approx(expected, rel=1e-5)
    assert 0 < weight_bytes(demo_path) < demo_path.stat().st_size
    peak = found["edgellm_read_peak_bytes_per_second"]
    assert peak > 0
    assert again["edgellm_read_peak_bytes_per_second"] == peak  # measured once


def test_only_steps_count_and_only_of_texts_that_ran_alone(tmp_path):
    stats = Stats(5, 0, 21, 1.0, 1.0, 10.0, 0, accepted_tokens=8, forced_tokens=2)
    assert read_speed(1000, stats) == 1000 * 10.0 * 10 / 20
    assert read_speed(1000, Stats(5, 0, 4, 1.0, 1.0, 10.0, 0)) is None
    assert read_speed(1000, Stats(5, 0, 1, 1.0, 1.0, 0.0, 0)) is None
    assert weight_bytes(tmp_path / "none.edge") == 0
    metrics = Metrics()
    first = metrics.watch("a")
    second = metrics.watch("a")
    first.end(stats)
    second.end(stats)
    assert metrics.last_alone == {}
    metrics.watch("a").end(None)
    third = metrics.watch("a")
    third.end(stats)
    assert metrics.last_alone == {"a": stats}


def test_experts():
    assert expert_gauges({"plain": {}}) == []
    (_, _, shares), (_, _, idle) = expert_gauges({"moe": {3: [6, 2, 0, 0], 4: [0, 0, 0, 0]}})
    assert shares == [('{model="moe",layer="3"}', 0.75), ('{model="moe",layer="4"}', 0.0)]
    assert [value for _, value in idle] == [2, 4]


class NVMLError(Exception):
    pass


def fake_nvml(n_gpus: int) -> ModuleType:
    module = ModuleType("pynvml")

    def init() -> None:
        if n_gpus < 0:
            raise NVMLError("no driver")

    def handle(at: int) -> int:
        if n_gpus == 7:
            raise NVMLError("fallen off the bus")
        return at

    module.NVMLError = NVMLError  # type: ignore[attr-defined]
    module.nvmlInit = init  # type: ignore[attr-defined]
    module.nvmlDeviceGetCount = lambda: n_gpus  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = handle  # type: ignore[attr-defined]
    module.nvmlDeviceGetUtilizationRates = lambda at: SimpleNamespace(gpu=50 + at)  # type: ignore[attr-defined]
    module.nvmlDeviceGetMemoryInfo = lambda at: SimpleNamespace(used=at, total=8)  # type: ignore[attr-defined]
    return module


def test_gpus_through_nvml(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(2))
    with serving(FakeModel("Hello there!")) as server:
        text = server.ask("GET", "/metrics")[2]
    values = values_of(text)
    assert values['edgellm_gpu_busy_share{gpu="1"}'] == 0.51
    assert values['edgellm_gpu_memory_bytes{gpu="1",kind="used"}'] == 1
    assert values['edgellm_gpu_memory_bytes{gpu="0",kind="total"}'] == 8
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) .+|[a-z_]+(\{[^}]*\})? [-+.\deEinf]+", line, re.I), line


@pytest.mark.parametrize("module", [None, fake_nvml(-1), fake_nvml(7)])
def test_machines_without_gpus_say_nothing_of_them(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert Gpus().gauges() == []


def test_spans_belong_to_the_clients_trace():
    sdk = pytest.importorskip(
        "opentelemetry.sdk.trace", reason="NOT TESTED: opentelemetry-sdk is not installed"
    )
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    with serving(FakeModel("Hello there!")) as server:
        asked = chat(model="fake")
        assert server.ask("POST", "/v1/chat/completions", asked, traceparent=parent)[0] == 200
        server.ask("POST", "/v1/completions", {"prompt": "a", "max_tokens": 3, "stream": True})
    whole, streamed = spans.get_finished_spans()
    assert whole.name == "chat fake"
    assert f"{whole.context.trace_id:032x}" == "ab" * 16
    assert whole.attributes["gen_ai.usage.output_tokens"] == len("Hello there!") + 1
    assert streamed.name == "text_completion fake"
    assert streamed.context.trace_id != whole.context.trace_id
    assert streamed.attributes["gen_ai.usage.output_tokens"] == 3


def test_without_its_package_nothing_is_traced(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with serving(FakeModel("Hello there!")) as server:
        assert server.ask("POST", "/v1/chat/completions", chat())[0] == 200
