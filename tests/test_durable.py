"""Small files are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgellm.durable import replace_whole, write_whole
from edgellm.errors import FormatError


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_whole(path, "först\n")
    write_whole(path, b"then\n")
    replace_whole(path, b"last\n", tmp_path / ".mine")
    assert path.read_bytes() == b"last\n"
    assert os.listdir(tmp_path) == ["state.json"]


def test_what_cannot_be_written_is_an_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no/such/place: cannot be written: No such file"):
        write_whole(tmp_path / "no" / "such" / "place", "text")
    taken = tmp_path / "folder"
    taken.mkdir()
    (taken / "kept").touch()
    with pytest.raises(FormatError) as caught:
        write_whole(taken, "text")
    assert caught.value.code == "file_write_failed"
    assert os.listdir(tmp_path) == ["folder"]
    assert (taken / "kept").exists()
