"""Streamers get what transformers would hand them, and its own work."""

from __future__ import annotations

import io
import queue
from collections.abc import Iterator
from threading import Thread

import numpy as np
import pytest

import edgellm
from edgellm import TextIteratorStreamer, TextStreamer
from edgellm.testing import FakeModel

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def demo(demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path) as model:
        yield model


class Noted:
    """What came, in order."""

    def __init__(self) -> None:
        self.values: list[np.ndarray | None] = []

    def put(self, value: np.ndarray) -> None:
        self.values.append(value)

    def end(self) -> None:
        self.values.append(None)


def test_prompt_tokens_and_end(demo):
    noted = Noted()
    answer = demo.generate(PROMPT, max_tokens=9, streamer=noted)
    assert answer.token_ids == demo.generate(PROMPT, max_tokens=9).token_ids
    prompt, *tokens, end = noted.values
    assert prompt.dtype == np.int64
    assert prompt.tolist() == [demo.tokenize(PROMPT)]
    assert [token.tolist() for token in tokens] == [[one] for one in answer.token_ids]
    assert end is None


def test_texts_are_printed_character_by_character(demo, capsys):
    answer = demo.generate(PROMPT, max_tokens=20, streamer=TextStreamer(demo, skip_prompt=True))
    assert capsys.readouterr().out == answer.text + "\n"
    out = io.StringIO()
    streamer = TextStreamer(demo, file=out)
    for _ in range(2):  # one text after another
        demo.generate(PROMPT, max_tokens=20, streamer=streamer)
    assert out.getvalue() == 2 * (PROMPT + answer.text + "\n")
    fake = FakeModel("gr\u00fc\u00dfe \x1b[2J \u20ac")  # a token is a byte
    out = io.StringIO()
    fake.generate("Well?", max_tokens=40, streamer=TextStreamer(fake, True, file=out))
    assert out.getvalue() == "gr\u00fc\u00dfe \u241b[2J \u20ac\n"
    out = io.StringIO()
    fake.generate("Well?", max_tokens=3, streamer=TextStreamer(fake, True, file=out))
    assert out.getvalue() == "gr\ufffd\n"


def test_an_iterator_in_another_thread(demo):
    pieces = TextIteratorStreamer(demo, skip_prompt=True, timeout=60)
    told = {"max_tokens": 20, "streamer": pieces}
    worker = Thread(target=demo.generate, args=(PROMPT,), kwargs=told)
    worker.start()
    assert "".join(pieces) == demo.generate(PROMPT, max_tokens=20).text
    worker.join()
    with pytest.raises(queue.Empty, match="within 0 s"):
        next(TextIteratorStreamer(demo, timeout=0))


def test_errors_end_the_text(demo):
    class Broken(Noted):
        def put(self, value: np.ndarray) -> None:
            super().put(value)
            if len(self.values) == 3:
                raise RuntimeError("broken")

    broken = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        demo.generate(PROMPT, max_tokens=20, streamer=broken)
    assert len(broken.values) == 4
    assert broken.values[-1] is None
    stopped = edgellm.CancelToken()
    stopped.cancel()
    noted = Noted()
    answer = demo.generate(PROMPT, max_tokens=20, streamer=noted, cancel=stopped)
    assert (answer.finish_reason, len(noted.values)) == ("cancelled", 2)


@pytest.mark.slow  # importing transformers takes long
def test_the_streamer_of_transformers(demo, tiny_checkpoint, tiny_edge, capsys):
    transformers = pytest.importorskip(
        "transformers", reason="NOT TESTED: transformers is not installed"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint)
    with edgellm.load(tiny_edge) as tiny:
        streamer = transformers.TextStreamer(tokenizer, skip_prompt=True)
        answer = tiny.generate("Hello", max_tokens=12, streamer=streamer, stop_ids=())
        wanted = tokenizer.decode(answer.token_ids)
    assert capsys.readouterr().out == wanted + "\n"
