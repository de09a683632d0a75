"""Many clients, rude ones among them, and the end: counts and texts, no times."""

from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from edgellm.testing import FakeModel
from server.serving import PATIENCE_S, GatedModel, Running, chat, post, serving, until


def said(server: Running, text: str = "Hi") -> str:
    status, _, body = server.ask("POST", "/v1/chat/completions", chat(text))
    assert status == 200, body
    return body["choices"][0]["message"]["content"]


def read_events(connection: socket.socket, n: int) -> bytes:
    data = b""
    while data.count(b"data: ") < n:
        piece = connection.recv(65536)
        assert piece, data
        data += piece
    return data


def test_requests_wait_for_their_turn_and_too_many_are_refused():
    model = GatedModel("ok")
    with serving(model, slots=2, queue=3) as server, ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(said, server) for _ in range(5)]
        until(lambda: (server.engine.slots.n_taken, server.engine.slots.n_waiting) == (2, 3))
        status, headers, body = server.ask("POST", "/v1/chat/completions", chat())
        assert (status, body["error"]["code"]) == (429, "queue_full")
        assert headers["retry-after"] == "1"
        assert server.ask("GET", "/health")[0] == 200  # which waits for nobody
        model.open()
        assert [one.result(PATIENCE_S) for one in waiting] == ["ok"] * 5
        until(lambda: server.engine.slots.n_taken == 0)


def test_who_goes_away_frees_his_slot_wherever_he_is():
    model = GatedModel("ok")
    with serving(model, slots=1, queue=2) as server:
        streaming = server.raw(post("/v1/chat/completions", chat(stream=True)))
        read_events(streaming, 1)
        whole = server.raw(post("/v1/chat/completions", chat()))
        until(lambda: server.engine.slots.n_waiting == 1)
        another = server.raw(post("/v1/completions", {"prompt": "x"}))
        until(lambda: server.engine.slots.n_waiting == 2)
        another.close()  # from the queue
        until(lambda: server.engine.slots.n_waiting == 1)
        streaming.close()  # while it streams
        until(lambda: (server.engine.slots.n_taken, server.engine.slots.n_waiting) == (1, 0))
        whole.close()  # while its text is made
        until(lambda: server.engine.slots.n_taken == 0)
        assert not server.engine._runs
        model.open()
        assert said(server) == "ok"
        assert server.engine.metrics.n_cancelled >= 3


def test_rude_clients_do_not_touch_the_others():
    """One that does not read, fifty that never finish a request, and two hundred that go away,
    while four stream."""
    texts = {f"good {at}": f"<{at}>" * 40 for at in range(4)}
    model = GatedModel({**texts, "slow": "s" * 3000, "abort": "a" * 3000})
    with serving(model, slots=300, queue=10, connections=600) as server:
        loris = [server.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127") for _ in range(50)]
        slow = server.raw(post("/v1/chat/completions", chat("slow", stream=True)))
        found: dict[str, str] = {}

        def stream(text: str) -> None:
            body = server.ask("POST", "/v1/chat/completions", chat(text, stream=True))[2]
            events = [json.loads(line[6:]) for line in body.splitlines() if line[:7] == "data: {"]
            choices = [choice for one in events for choice in one["choices"]]
            found[text] = "".join(choice["delta"].get("content", "") for choice in choices)
            assert choices[-1]["finish_reason"] == "stop"

        threads = [threading.Thread(target=stream, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        request = post("/v1/chat/completions", chat("abort", stream=True))
        for at in range(200):
            rude = server.raw(request)
            if at % 2:
                model.gate.release(5)
                read_events(rude, 1)
            rude.close()
        model.open()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert found == texts
        slow.close()
        until(lambda: server.engine.slots.n_taken == 0)
        assert server.ask("GET", "/health")[0] == 200
        for one in loris:
            one.close()


def test_heads_and_bodies_that_do_not_come_are_given_up():
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with serving(FakeModel(), head_s=1.0, body_s=0.2) as server:
        for slow in [server.raw(sent) for sent in (b"", b"GET /heal", head)]:
            assert slow.recv(100) == b""
        again = server.raw(head + b"\r\n")
        answer = b""
        while not answer.endswith(b'["fake"]}'):
            answer += again.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        again.sendall(b"GET /heal")  # the next one of the same connection
        assert again.recv(100) == b""
        body = post("/v1/chat/completions", chat())[:-5]
        assert b"408" in server.raw(body).recv(10_000).split(b"\r\n")[0]
        huge = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 40_000
        assert b"400" in server.raw(huge).recv(10_000).split(b"\r\n")[0]


def test_a_client_that_takes_nothing_is_given_up():
    model = FakeModel("a" * 400_000, n_ctx=1_000_000)
    with serving(model, send_s=0.2, max_tokens=500_000) as server:
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.settimeout(PATIENCE_S)
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(post("/v1/chat/completions", chat(stream=True)))
        until(lambda: server.engine.slots.n_taken == 1)
        until(lambda: server.engine.slots.n_taken == 0)
        stuck.close()
        assert server.engine.metrics.tokens["generated"] < 400_000


def test_at_the_end_texts_end_and_nobody_is_let_in():
    model = GatedModel("four score and seven years")
    with serving(model, drain_s=0.3, slots=1) as server:
        streaming = server.raw(post("/v1/chat/completions", chat(stream=True)))
        model.gate.release(4)
        data = read_events(streaming, 5)
        waiting = server.raw(post("/v1/chat/completions", chat()))
        until(lambda: server.engine.slots.n_waiting == 1)
        server.server.should_exit = True
        while piece := streaming.recv(65536):
            data += piece
        assert b'"finish_reason": "length"' in data  # what there was, and an honest reason
        assert data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        server.thread.join(PATIENCE_S)
        assert not server.thread.is_alive()
        waiting.close()


def test_silence_is_broken_by_comments(monkeypatch):
    monkeypatch.setattr("edgellm.server.streams._PING_S", 0.05)
    model = GatedModel("ok")
    with serving(model, send_s=0.2) as server:
        waiting = server.raw(post("/v1/chat/completions", chat(stream=True)))
        data = read_events(waiting, 1)
        while data.count(b": still here\n\n") < 2:
            data += waiting.recv(65536)
        model.open()
        while b"[DONE]" not in data:
            data += waiting.recv(65536)
        assert b'"content": "k"' in data
