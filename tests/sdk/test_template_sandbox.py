"""Hostile templates end in a typed error, soon and in little memory; good ones get all they use."""

from __future__ import annotations

import gc
import time
import tracemalloc
from contextlib import suppress
from datetime import datetime

import pytest

from edgellm import ChatTemplate, InvalidArgumentError, TemplateError
from sdk.hostile_templates import hostile_templates

MESSAGES = [{"role": "user", "content": "Hello " * 20}, {"role": "assistant", "content": "Hi"}]
HOSTILE = list(dict.fromkeys(hostile_templates()))
CODES = {
    "template_too_large",
    "template_syntax",
    "template_forbidden",
    "template_limit",
    "template_failed",
}
MAX_MS, MAX_BYTES = 100, 32 << 20
HANG_MS = 2000  # what no template may take, on the slowest machine


def attack(source: str) -> None:
    ChatTemplate(source, variables={"bos_token": "<s>"}).render(MESSAGES)


def test_there_are_enough_hostile_templates():
    assert len(HOSTILE) >= 200


def best_ms(source: str, good_ms: float) -> float:
    """CPU time of an attack, the best of four: the machine may be busy."""
    times_ms: list[float] = []
    while len(times_ms) < 4 and (not times_ms or times_ms[-1] > good_ms):
        started = time.process_time()
        with pytest.raises(TemplateError) as caught:
            attack(source)
        times_ms.append(1e3 * (time.process_time() - started))
        assert caught.value.code in CODES
    return min(times_ms)


def test_hostile_templates_end_in_a_typed_error():
    ChatTemplate("{{ 1 }}").render(MESSAGES)
    assert [s[:150] for s in HOSTILE if best_ms(s, HANG_MS) > HANG_MS] == []


@pytest.mark.slow
def test_hostile_templates_end_soon():
    ChatTemplate("{{ 1 }}").render(MESSAGES)
    slow = {s[:150]: ms for s in HOSTILE if (ms := best_ms(s, MAX_MS)) > MAX_MS}
    assert slow == {}


def peak_bytes(source: str) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        with suppress(TemplateError):
            attack(source)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_hostile_templates_take_little_memory():
    # Every twentieth, and all that double what they have; tracing is slow.
    sample = [*HOSTILE[::20], *(s for s in HOSTILE if "range(60)" in s and "n.x + n.x" in s)]
    assert [s[:150] for s in sample if peak_bytes(s) > MAX_BYTES] == []


@pytest.mark.slow
def test_all_hostile_templates_take_little_memory():
    assert [s[:150] for s in HOSTILE if peak_bytes(s) > MAX_BYTES] == []


def test_a_template_gets_the_extras_of_transformers():
    source = (
        "{%- for m in messages %}{% if loop.last %}{% break %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}"
        "{{ strftime_now('%Y') }}{{ dict(a=1).a }}{{ namespace(b=2).b }}"
    )
    then = datetime(2024, 5, 6)
    text = ChatTemplate(source, now=lambda: then).render([{"role": "<&>"}, {"role": "x"}])
    assert text == '{"role": "<&>"}202412'


def test_a_refusal_of_the_template_is_told():
    with pytest.raises(TemplateError, match="only users here") as caught:
        ChatTemplate("{{ raise_exception('only users here') }}").render(MESSAGES)
    assert caught.value.code == "template_refused"


def test_a_long_conversation_stays_inside_the_limits():
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim "
        "+ '<|im_end|>' + '\n' }}{% endfor %}"
    )
    chat = [{"role": "user", "content": "word " * 40}] * 2000
    assert len(ChatTemplate(source).render(chat)) > 400_000


def test_what_is_not_plain_data_is_refused():
    for content in (object(), b"bytes", {1, 2}):
        with pytest.raises(InvalidArgumentError, match="holds a"):
            ChatTemplate("x").render([{"role": "user", "content": content}])
    with pytest.raises(InvalidArgumentError, match="role"):
        ChatTemplate("x").render([{"content": "no role"}])
