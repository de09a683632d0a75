"""Chats on disk: the same next tokens, in this process and after a restart, and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgellm
from edgellm import FormatError, InvalidArgumentError, SessionError, _native
from edgellm.options import KV_FORMATS
from edgellm.transcript import Transcript

FIRST, SECOND = "How do I show the current date?", "And the time?"
SAMPLING = {"max_tokens": 24, "temperature": 0.8, "seed": 3}


@pytest.fixture(scope="module", params=["F16"])
def demo(request, demo_path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path, kv=request.param, prefix_cache=0) as model:
        yield model


@pytest.fixture(scope="module")
def saved(demo, tmp_path_factory) -> tuple[Path, edgellm.Generation, tuple[edgellm.Turn, ...]]:
    """A chat after its first reply, what it would have said next, and its turns then."""
    path = tmp_path_factory.mktemp("chats") / "first.session"
    with demo.chat(system="You help with the shell.") as chat:
        chat.send(FIRST, **SAMPLING)
        chat.save(path)
        after = chat.send(SECOND, **SAMPLING)
        return path, after, chat.turns


def same(a: edgellm.Generation, b: edgellm.Generation) -> bool:
    return (a.text, a.token_ids, a.logprobs) == (b.text, b.token_ids, b.logprobs)


@pytest.mark.parametrize("demo", KV_FORMATS, indirect=True)
def test_a_restored_chat_goes_on_as_the_saved_one_and_says_from_where(demo, saved):
    path, after, turns = saved
    with demo.restore(path) as chat:
        assert chat.turns == turns[:1]
        assert chat.messages[0] == {"role": "system", "content": "You help with the shell."}
        reply = chat.send(SECOND, **SAMPLING)
        assert same(reply, after)
        assert chat.turns == turns
        assert reply.stats.reused_tokens == len(turns[0].prompt_ids) + len(turns[0].reply_ids)
        assert (reply.stats.reused_from, reply.stats.first_mismatch) == ("disk", None)
        assert chat.regenerate(**SAMPLING).stats.reused_from == "ram"


def test_a_restored_chat_says_where_its_kv_does_not_fit(demo, saved):
    path, _, turns = saved
    with demo.restore(path) as chat:
        reply = chat.edit(0, "List all files.", **SAMPLING)
        assert 0 < reply.stats.reused_tokens == reply.stats.first_mismatch
        assert reply.stats.first_mismatch < len(turns[0].prompt_ids)
        assert reply.stats.reused_from == "disk"


def test_without_its_kv_a_chat_goes_on_with_the_same_tokens(demo, saved):
    path, after, turns = saved
    with demo.restore(path, kv=False) as chat:
        assert chat.turns == turns[:1]
        reply = chat.send(SECOND, **SAMPLING)
        assert same(reply, after)
        assert (reply.stats.reused_tokens, reply.stats.reused_from) == (0, None)


def test_another_process_goes_on_with_the_same_tokens(demo, saved, demo_path):
    path, after, _ = saved
    load = f"edgellm.load({str(demo_path)!r}, kv={demo.info().kv_format!r})"
    code = (
        "import edgellm, json, sys\n"
        f"with {load} as model, model.restore({str(path)!r}) as chat:\n"
        f"    reply = chat.send({SECOND!r}, **{SAMPLING!r})\n"
        "print(json.dumps([reply.token_ids, reply.stats.reused_from]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [after.token_ids, "disk"]


def test_another_template_is_refused_by_name_unless_all_is_read_again(demo, saved):
    path, _, turns = saved
    other = "A chat. " + demo._native.blob("chat_template").decode()
    with pytest.raises(SessionError, match="another chat template") as raised:
        demo.restore(path, template=other)
    assert raised.value.code == "session_mismatch"
    with demo.restore(path, template=other, kv=False) as chat:
        assert [turn.reply for turn in chat.turns] == [turns[0].reply]
        assert list(chat.turns[0].prompt_ids) != list(turns[0].prompt_ids)
        reply = chat.send(SECOND, **SAMPLING)
        prompt = chat.turns[1].prompt_ids
    assert same(reply, demo.generate(prompt, **SAMPLING))


def test_another_model_is_refused_and_its_sessions_go_on(demo, saved, tiny_edge):
    path, _, _ = saved
    with edgellm.load(tiny_edge) as other:
        session = _native.Session(other._native, 0)
        with pytest.raises(SessionError, match=r"another model .*another tokenizer") as raised:
            session.restore(_native.SessionFile.open(path))
        assert raised.value.code == "session_mismatch"
        session.append([1, 2, 3])
        assert session.run()
        assert np.array_equal(session.logits(), other.logits([1, 2, 3])[-1])


def test_save_ends_a_reply_under_way_and_needs_a_place_to_write(demo, tmp_path):
    with demo.chat() as chat:
        stream = chat.stream(FIRST, **SAMPLING)
        next(stream)
        chat.save(tmp_path / "begun")
        assert stream.finish_reason == "cancelled"
        with pytest.raises(FormatError) as raised:
            chat.save(tmp_path / "no" / "where")
        assert raised.value.code == "file_write_failed"
        after = chat.send(SECOND, **SAMPLING)
    with demo.restore(tmp_path / "begun") as chat:
        assert same(chat.send(SECOND, **SAMPLING), after)
    assert (tmp_path / "begun").stat().st_mode & 0o077 == 0


def test_what_json_cannot_hold_is_refused_when_it_is_saved(demo, tmp_path):
    with (
        demo.chat(variables={"key": float("nan")}) as chat,
        pytest.raises(InvalidArgumentError, match="cannot be saved"),
    ):
        chat.save(tmp_path / "never")
    assert not any(tmp_path.iterdir())


def test_every_note_that_is_not_as_written_is_refused_by_name(saved):
    note = _native.SessionFile.open(saved[0]).note
    assert Transcript.from_json(note, "file").to_json() == note
    rng = random.Random(5)
    hostile = [None, True, -1, 2**40, 1.5, "text", [], {}, [[]], {"role": 1}]
    refusals = [error for error in (_refusal(note, rng, hostile) for _ in range(400)) if error]
    assert len(refusals) > 250
    assert {error.code for error in refusals} == {"session_invalid"}
    assert all(str(error).startswith("file: ") for error in refusals)
    for broken in (b"", b"\xff", b"[" * 100, note[:-1], note + b"x", b'{"kind": "edgellm.chat"}'):
        with pytest.raises(SessionError):
            Transcript.from_json(broken, "file")


def _refusal(note: bytes, rng: random.Random, hostile: list[object]) -> SessionError | None:
    """What is said of `note` with one item changed."""
    document = json.loads(note)
    parent, key = rng.choice(list(_places(document)))
    parent[key] = rng.choice(hostile)
    try:
        Transcript.from_json(json.dumps(document).encode(), "file")
    except SessionError as error:
        return error
    return None


def _places(value: object) -> Iterator[tuple[object, object]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
@pytest.mark.parametrize("n_kills", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_process_killed_while_saving_leaves_a_whole_session(demo, tmp_path, n_kills):
    path = tmp_path / "killed.session"
    rng = random.Random(9)
    with demo.chat() as first, demo.chat() as second:
        replies = {m: c.send(m, **SAMPLING).text for m, c in ((FIRST, first), (SECOND, second))}
        seen = set()
        for _ in range(n_kills):
            _kill_while_saving((first, second), path, rng.uniform(0, 0.02))
            with demo.restore(path) as chat:
                (turn,) = chat.turns
                assert turn.reply == replies[turn.message["content"]]
                seen.add(turn.reply)
            assert len(list(tmp_path.iterdir())) <= 2, "temporary files pile up"
        first.save(path)
        assert list(tmp_path.iterdir()) == [path]
    assert seen == set(replies.values())


def _kill_while_saving(chats: tuple[edgellm.Chat, ...], path: Path, seconds: float) -> None:
    """Lets a child save them for ever, and kills it so long after the first one."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            while True:
                for chat in chats:
                    chat.save(path)
                    os.write(theirs, b"x")
        finally:
            os._exit(1)
    os.close(theirs)
    assert os.read(ours, 1) == b"x"
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(ours)
    assert os.WIFSIGNALED(status), "the child ended by itself"
