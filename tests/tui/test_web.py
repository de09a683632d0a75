"""The chat in a browser: who is let in."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from edgellm.tui.web import Door

from command_line import edgellm_after


@pytest.fixture
def door():
    return Door(4321)


def secret(door):
    return door.address.partition("key=")[2]


def test_who_has_the_secret_is_let_in(door):
    key = secret(door)
    assert len(key) >= 40
    assert secret(Door(4321)) != key
    assert door.why_not("127.0.0.1:4321", None, key, "") is None
    assert door.why_not("127.0.0.1:4321", "http://127.0.0.1:4321", "", key) is None


@pytest.mark.parametrize(
    ("host", "origin", "key", "reason"),
    [
        ("127.0.0.1:4321", None, "", "key"),
        ("127.0.0.1:4321", None, "wrong", "key"),
        ("127.0.0.1:4321", None, "\ud800".encode("utf-8", "replace").decode(), "key"),
        ("evil.example:4321", None, "right", "name"),
        ("127.0.0.1:4321", "http://evil.example", "right", "site"),
        ("127.0.0.1:4321", "null", "right", "site"),
    ],
)
def test_others_are_not(door, host, origin, key, reason):
    given = secret(door) if key == "right" else key
    assert reason in str(door.why_not(host, origin, given, ""))


def test_without_the_extra_there_is_a_hint(tmp_path):
    setup = "sys.modules['textual_serve'] = None"
    run = edgellm_after(setup, "chat", "demo", "--serve-web", cwd=tmp_path)
    assert run.returncode != 0
    assert "pip install 'edgellm[web]'" in run.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("textual_serve") is None, reason="textual-serve is not installed"
)
def test_the_page_and_its_socket_are_behind_the_door(tmp_path):
    command = [sys.executable, "-m", "edgellm", "chat", "demo", "--serve-web"]
    environ = {**os.environ, "EDGELLM_HOME": str(tmp_path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environ)
    try:
        said = ""
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/\?key=(\S+)", said)):
            assert time.monotonic() < deadline, said
            assert process.stderr is not None
            if select.select([process.stderr], [], [], 1.0)[0]:
                said += os.read(process.stderr.fileno(), 65536).decode()
        port, key = int(found[1]), found[2]

        def get(path, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer

        while True:  # it is said before it listens
            assert time.monotonic() < deadline
            with contextlib.suppress(ConnectionRefusedError):
                assert get("/").status == 403
                break
            time.sleep(0.1)
        assert get("/ws").status == 403
        assert get("/static/js/textual.js").status == 403
        page = get(f"/?key={key}")
        assert page.status == 200
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        cookie = page.headers["Set-Cookie"].partition(";")[0]
        assert get("/static/js/textual.js", Cookie=cookie).status == 200
        socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        evil = get("/ws", Cookie=cookie, Origin="http://evil.example", **socket)
        assert evil.status == 403
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
