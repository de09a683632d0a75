"""Ctrl-C while native code works on a long prompt."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from edgellm.converters import convert

import tiny_model
from edgellm import _native

N_TOKENS = 32768  # seconds of attention, if nothing ends it


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent as on POSIX")
def test_a_signal_ends_a_run_that_has_all_the_time_in_the_world(tmp_path: Path) -> None:
    checkpoint = tiny_model.write_tiny_checkpoint(tmp_path / "tiny")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(
        json.dumps(config | {"max_position_embeddings": N_TOKENS})
    )
    convert(checkpoint, tmp_path / "long.edge", format="E4_16")
    model = _native.Model.load(str(tmp_path / "long.edge"), n_threads=1)
    session = _native.Session(model, N_TOKENS)
    session.append([t % 256 for t in range(N_TOKENS)])
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        session.run(1e12)
    timer.join()
    assert 0 < session.n_tokens < N_TOKENS
    assert session.n_tokens + session.pending == N_TOKENS

    n_before = session.n_tokens
    session.run(0)  # what was processed stayed, the rest goes on
    assert session.n_tokens == n_before + 128
