"""`edgellm serve` as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import edgellm as run_edgellm
from server.serving import PATIENCE_S, Running, chat, post


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_in_order(end):
    command = [sys.executable, "-m", "edgellm", "serve", "demo", "--port", "0", "--json"]
    with subprocess.Popen(
        [*command, "--drain", "0.2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while not said.endswith("}\n}\n"):
            line = process.stdout.readline()
            assert line, process.communicate(timeout=PATIENCE_S)
            said += line
        data = json.loads(said)["data"]
        assert data["models"] == ["demo"]
        server = Running(int(data["url"].rpartition(":")[2]), None, None, None)  # type: ignore[arg-type]
        assert server.ask("GET", "/v1/models")[0] == 200
        asked = chat("Tell me a story", stream=True, ignore_eos=True)
        streaming = server.raw(post("/v1/chat/completions", asked))
        assert b"200 OK" in streaming.recv(4096)
        process.send_signal(end)
        answer = b""
        while piece := streaming.recv(65536):
            answer += piece
        streaming.close()
        assert process.wait(PATIENCE_S) == 0
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert b"data: [DONE]" in answer


def test_what_cannot_be_served_is_said_at_once(tmp_path: Path):
    missing = run_edgellm("serve", "no-such-model.edge", cwd=tmp_path)
    assert (missing.returncode, missing.stdout) == (3, "")
    assert "No such file" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
    outside = run_edgellm("serve", "demo", "--host", "0.0.0.0", cwd=tmp_path)
    assert outside.returncode == 2
    assert "give a token" in outside.stderr
