"""A file larger than what the machine really has available: refused before any of it is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from command_line import edgellm_after, failure_of
from edgellm import edgefile, leaf_hasher
from edgellm.cli.exits import Exit
from edgellm.edgeheader import LEAF_BYTES

ZEROS = memoryview(bytes(LEAF_BYTES))
ZERO_DIGEST = hashlib.sha256(ZEROS).digest()
MAX_RSS_BYTES = 400 << 20


@pytest.fixture
def sparse_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """EdgeWriter leaves holes for whole leaves of zeros and hashes them only once."""
    update, write = leaf_hasher.LeafHasher.update, edgefile._write_all

    def quick_update(self: Any, view: memoryview) -> None:
        if view.obj is ZEROS.obj and self.n_bytes % LEAF_BYTES == 0:
            self.n_bytes += LEAF_BYTES
            self._digests += ZERO_DIGEST
        else:
            update(self, view)

    def sparse_write(file: Any, view: memoryview) -> None:
        if view.obj is ZEROS.obj:
            file.seek(LEAF_BYTES, os.SEEK_CUR)
        else:
            write(file, view)

    monkeypatch.setattr(leaf_hasher.LeafHasher, "update", quick_update)
    monkeypatch.setattr(edgefile, "_write_all", sparse_write)


def with_a_huge_blob(source: Path, out: Path, n_leaves: int) -> Path:
    """A valid copy of a model whose report is `n_leaves` MiB of zeros, as a hole in the file."""
    header = edgefile.read_header(source)
    with edgefile.EdgeWriter(out, spec=header.spec) as writer:
        writer.plan("report", "report", format="U8", shape=(n_leaves * LEAF_BYTES,))
        writer.add("report", (ZEROS for _ in range(n_leaves)))
        for tensor in header.tensors.values():
            if tensor.name not in ("report", "edgellm.hashes"):
                data = bytes(edgefile.read_tensor(header, tensor.name))
                shape = (len(data),) if tensor.format == "U8" else tensor.shape
                writer.append(
                    tensor.name,
                    tensor.role,
                    data,
                    format=tensor.format,
                    shape=shape,
                    act=tensor.act,
                )
    return out


@pytest.mark.usefixtures("sparse_writer")
def test_more_than_the_machine_has_is_refused_unread(tiny_edge, tmp_path):
    from edgellm import _native

    small = with_a_huge_blob(tiny_edge, tmp_path / "small.edge", 2)
    if small.stat().st_blocks * 512 > LEAF_BYTES:
        pytest.skip("this file system has no sparse files")
    n_leaves = (_native.memory_figures()["total_bytes"] >> 20) + 1024
    huge = with_a_huge_blob(tiny_edge, tmp_path / "huge.edge", n_leaves)
    # Not getrusage: a child's ru_maxrss begins with that of the process that forked it.
    setup = """
import atexit
from edgellm import _native
atexit.register(lambda: print(_native.memory_figures()["peak_rss_bytes"]))
"""
    fits = edgellm_after(setup, "run", small, "hi", "-n", 1, cwd=tmp_path)
    assert fits.returncode == 0, fits.stderr
    run = edgellm_after(setup, "run", huge, "hi", "-n", 1, cwd=tmp_path)
    message = failure_of(run, Exit.MEMORY)
    assert f"file {huge.stat().st_size >> 20}." in message
    assert "no context fits" in message
    assert "take a smaller model" in message
    assert int(run.stdout) < MAX_RSS_BYTES
