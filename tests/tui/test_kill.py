"""SIGKILL at any moment: what was sent is there, and of what came or was typed all but the last."""

from __future__ import annotations

import os
import random

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are a POSIX matter")


@pytest.mark.parametrize("after_s", [0.05, 1.7])
def test_a_killed_chat_loses_next_to_nothing(tmp_path, after_s):
    from tui.killed_chat import check, kill_one

    check(kill_one(tmp_path, after_s))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_hundred_killed_chats_lose_next_to_nothing(tmp_path):
    from tui.killed_chat import check, kill_one

    rng = random.Random(1)
    lost = []
    for n in range(500):
        folder = tmp_path / str(n)
        folder.mkdir()
        remains = kill_one(folder, rng.uniform(0.0, 2.0))
        check(remains)
        lost.append((remains.reply_lost_s, remains.draft_lost_s))
    for name, values in zip(("reply", "draft"), zip(*lost, strict=True), strict=True):
        ordered = sorted(values)
        print(f"{name}: median {ordered[250]:.2f} s, most {ordered[-1]:.2f} s lost")
