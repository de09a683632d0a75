"""What many chats with one system prompt take: a sixth of what they take apart, and as much as the
account says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import pytest

import tiny_model

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is counted as Linux does"
)

N_CHATS, N_COMMON, N_OWN = 8, 1000, 40
MUCH_KV = {"N_CTX": 1200, "N_LAYERS": 4, "N_HEADS": 8, "N_KV_HEADS": 8, "HEAD_DIM": 128}

# In a process of its own: what other tests left in memory would hide what is taken here. Prints, of
# chats that share and of one alone: bytes in use, accounted besides, grown by, and tokens held.
CHATS = """
import ctypes, json, sys
from pathlib import Path
import edgellm

PATH, (N_CHATS, N_COMMON, N_OWN) = sys.argv[1], map(int, sys.argv[2:])
libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a huge page is more than was touched

def anonymous_bytes():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])

def talk(model, n_chats, namespace):
    # A token is a byte; the template takes some of both parts.
    system = "x" * (N_COMMON - len("<|im_start|>system\\n<|im_end|>\\n<|im_start|>user\\n"))
    n_reply = N_OWN - len("1<|im_end|>\\n<|im_start|>assistant\\n")
    chats = [
        model.chat(system=system, template="chatml", namespace=namespace) for _ in range(n_chats)
    ]
    replies = [
        chat.send(str(i), max_tokens=n_reply + 1, stop_ids=[]).token_ids  # of the last, no KV
        for i, chat in enumerate(chats)
    ]
    return chats, replies

def measure(model, n_chats, namespace):
    libc.malloc_trim(0)
    before = anonymous_bytes()
    chats, replies = talk(model, n_chats, namespace)
    grown = anonymous_bytes() - before
    figures = model.kv_figures()
    tokens = [chat.context_tokens[0] for chat in chats]
    for chat in chats:
        chat.close()
    model.trim()
    return {
        "used": figures["used_bytes"],
        "besides": figures["session_bytes"],
        "grown": grown,
        "tokens": tokens,
        "replies": replies,
    }

with edgellm.load(PATH, verify="never", kv="F16", speculate=False) as model:  # of KV alone
    measure(model, N_CHATS, "")  # scratch and weights are in memory from then on
    print(json.dumps([measure(model, N_CHATS, ""), measure(model, 1, "apart")]))
"""


class Measured(TypedDict):
    used: int
    besides: int
    grown: int
    tokens: list[int]
    replies: list[list[int]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measured, Measured]:
    """Eight together and one apart, on a model that has much KV and little else."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in MUCH_KV.items():
            patched.setattr(tiny_model, name, value)
        path = tiny_model.make_tiny_edge(tmp_path_factory.mktemp("kv") / "much_kv.edge")
    arguments = (str(path), *map(str, (N_CHATS, N_COMMON, N_OWN)))
    made = subprocess.run(
        [sys.executable, "-c", CHATS, *arguments], capture_output=True, check=True, timeout=300
    )
    together, alone = json.loads(made.stdout)
    return together, alone


def test_eight_chats_with_a_common_system_prompt_take_a_sixth(
    measured: tuple[Measured, Measured],
) -> None:
    together, alone = measured
    assert together["tokens"] == N_CHATS * alone["tokens"] == N_CHATS * [N_COMMON + N_OWN]
    assert together["replies"][:1] == alone["replies"]
    assert 6 * together["used"] <= N_CHATS * alone["used"]


def test_the_account_is_what_the_process_grew_by(measured: tuple[Measured, Measured]) -> None:
    together, _ = measured
    accounted = together["used"] + together["besides"]
    assert abs(together["grown"] - accounted) <= 0.03 * accounted
