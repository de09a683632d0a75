"""KV that leaves memory goes to a directory, and comes back from there with the same tokens."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgellm
from command_line import data_of
from command_line import edgellm as run_edgellm
from edgellm.errors import FormatError, InvalidArgumentError
from edgellm.options import KV_FORMATS

PROMPT = "Once upon a time there was a little girl who lived in a house near the forest. " * 6
LONG = PROMPT * 3
N_NEW = 64


def load(directory: Path, **options: object) -> edgellm.Model:
    return edgellm.load("demo", verify="always", kv_cache_dir=directory, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def expected() -> list[int]:
    with edgellm.load("demo", prefix_cache=0) as model:
        return model.generate(PROMPT, max_tokens=N_NEW, stop_ids=[]).token_ids


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "kv"


def generate(model: edgellm.Model) -> edgellm.Generation:
    return model.generate(PROMPT, max_tokens=N_NEW, stop_ids=[])


def pages(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def process(directory: Path) -> subprocess.Popen[bytes]:
    code = (
        "import edgellm, json\n"
        f"with edgellm.load('demo', verify='always', kv_cache_dir={str(directory)!r}) as model:\n"
        f"    text = model.generate({PROMPT!r}, max_tokens={N_NEW}, stop_ids=[])\n"
        "stats = text.stats\n"
        "print(json.dumps([text.token_ids, stats.reused_from, stats.reused_disk_tokens]))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


def test_another_process_goes_on_from_the_directory_with_the_same_64_tokens(directory, expected):
    together = [process(directory) for _ in range(2)]
    for one in together:
        out, _ = one.communicate(timeout=120)
        assert json.loads(out)[0] == expected
    out, _ = process(directory).communicate(timeout=120)
    with load(directory) as model:
        n_prompt = len(model.tokenize(PROMPT))
    n_whole = (n_prompt - 1) // 16 * 16
    assert json.loads(out) == [expected, "disk", n_whole]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {page.stat().st_mode & 0o777 for page in pages(directory)} == {0o600}
    assert len(pages(directory)) == (n_prompt + N_NEW - 1) // 16


def test_what_is_trimmed_is_read_back_and_said_so(directory, expected):
    with load(directory) as model:
        first = generate(model)
        assert (first.token_ids, first.stats.reused_from) == (expected, None)
        in_memory = generate(model)
        assert in_memory.token_ids == expected
        assert (in_memory.stats.reused_from, in_memory.stats.reused_disk_tokens) == ("ram", 0)
        assert model.trim() > 0
        assert model.kv_figures()["used_bytes"] == 0
        again = generate(model)
        assert again.token_ids == expected
        assert again.logprobs == first.logprobs
        assert again.stats.reused_from == "disk"
        assert again.stats.reused_tokens == again.stats.reused_disk_tokens
        assert again.stats.reused_tokens > again.stats.prompt_tokens - 17
        figures = model.kv_figures()
        assert figures["n_disk_read_tokens"] == again.stats.reused_disk_tokens
        assert figures["disk_bytes"] == sum(page.stat().st_size for page in pages(directory))
        several = model.generate_n(PROMPT, 2, max_tokens=2)
        assert several[0].stats.reused_from == "ram"


def test_a_chat_that_gave_its_memory_back_goes_on_from_disk(directory):
    options = {"max_tokens": 8, "temperature": 0.8, "seed": 3}
    with edgellm.load("demo", prefix_cache=0) as plain, load(directory) as model:
        replies = []
        for loaded in (plain, model):
            with loaded.chat(system=PROMPT, template="chatml") as chat:
                chat.send("Who was she?", **options)
                if loaded is model:
                    assert chat.trim(2**60) > 0
                    assert model.kv_figures()["used_bytes"] == 0
                replies.append(chat.send("And then?", **options))
        assert replies[0].token_ids == replies[1].token_ids
        assert replies[0].logprobs == replies[1].logprobs
        stats = replies[1].stats
        assert (stats.reused_from, stats.first_mismatch) == ("disk", None)
        assert replies[0].stats.prompt_tokens - stats.reused_disk_tokens < 64
        # The next turn has it in memory.
        assert stats.reused_disk_tokens == model.kv_figures()["n_disk_read_tokens"]


def test_damaged_files_cost_time_and_nothing_else(directory, expected):
    with load(directory) as model:
        generate(model)
        model.trim()
        for round_, page in enumerate(pages(directory)[:4]):
            data = bytearray(page.read_bytes())
            data[random.Random(round_).randrange(len(data))] ^= 1
            page.write_bytes(data)
        assert generate(model).token_ids == expected
        model.trim()
        assert generate(model).token_ids == expected
        assert 1 <= model.kv_figures()["n_disk_damaged_files"] <= 4
        for page in pages(directory):
            page.unlink()
        directory.rmdir()
        directory.write_text("no directory any more")
        model.generate("Another story", max_tokens=64, stop_ids=[])
        model.trim()
        assert model.kv_figures()["n_disk_failed_writes"] > 0
        assert generate(model).token_ids == expected


def test_formats_namespaces_and_unverified_files_have_pages_of_their_own(directory, expected):
    for options in ({"verify": "never"}, *({"kv": kv} for kv in KV_FORMATS)):
        arguments = {"verify": "always", **options}
        with edgellm.load("demo", kv_cache_dir=directory, **arguments) as model:
            computed = generate(model)
            assert computed.stats.reused_tokens == 0
            model.trim()
            read = generate(model)
            assert read.stats.reused_from == "disk"
            assert (read.token_ids, read.logprobs) == (computed.token_ids, computed.logprobs)
    with load(directory) as model:
        options = {"max_tokens": N_NEW, "stop_ids": []}
        apart = model.generate(PROMPT, namespace="a tenant", **options)
        assert (apart.token_ids, apart.stats.reused_tokens) == (expected, 0)
        assert generate(model).stats.reused_from == "disk"
        model.trim()
        assert model.generate(PROMPT, namespace="a tenant", **options).stats.reused_from == "disk"


def test_the_budget_holds(directory):
    with load(directory, kv_cache_disk_bytes=2**21) as model:
        for start in ("One day", "Once", "There was", "A dog", "The king", "She said"):
            model.generate(f"{start}. {PROMPT}", max_tokens=1)
            model.trim()
            assert sum(page.stat().st_size for page in pages(directory)) <= 2**21
        assert model.kv_figures()["n_disk_failed_writes"] == 0


def test_what_cannot_be_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidArgumentError, match="kv_cache_disk_bytes"):
        edgellm.load("demo", kv_cache_dir=tmp_path / "kv", kv_cache_disk_bytes=0)
    with pytest.raises(InvalidArgumentError, match="at least"):
        edgellm.load("demo", kv_cache_dir=tmp_path / "kv", kv_cache_disk_bytes=1000)
    with pytest.raises(InvalidArgumentError, match="kv_cache_dir"):
        edgellm.load("demo", kv_cache_dir="")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(FormatError, match="chmod 700") as raised:
        edgellm.load("demo", kv_cache_dir=tmp_path / "open")
    assert raised.value.code == "file_write_failed"


def test_the_command_line_has_it(directory, tmp_path):
    arguments = ("run", "demo", PROMPT, "-n", "4", "--json", "--kv-cache-dir", str(directory))
    with load(directory) as model:  # once its hashes are known to be right, others need not wait
        generate(model)
    data = data_of(run_edgellm(*arguments, "--kv-cache-size", "64MiB", cwd=tmp_path), "run")
    assert data["stats"]["reused_from"] == "disk"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
@pytest.mark.parametrize("n_kills", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_process_killed_while_it_writes_leaves_whole_files(directory, n_kills):
    rng = random.Random(9)
    n_left = set()
    with load(directory) as model:
        expected = model.generate(LONG, max_tokens=N_NEW, stop_ids=[]).token_ids
        _write_in_child(model, directory)
        n_pages = len(pages(directory))
        n_done = 0
        while n_done < n_kills or (len(n_left) <= 2 and n_done < 100 * n_kills):
            _write_in_child(model, directory, killed_at=rng.randint(0, n_pages))
            n_left.add(len(pages(directory)))
            n_done += 1
    assert len(n_left) > 2, "no process was killed half-way"
    with load(directory) as model:  # looks
        assert all(page.suffix == ".kv" for page in pages(directory))
        assert model.generate(LONG, max_tokens=N_NEW, stop_ids=[]).token_ids == expected
        assert model.kv_figures()["n_disk_damaged_files"] == 0


def _write_in_child(model: edgellm.Model, directory: Path, killed_at: int | None = None) -> None:
    """A child gives all KV to the empty directory; it is killed once `killed_at` files are seen."""
    for page in pages(directory):
        page.unlink()
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model.trim()
            os.write(theirs, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(theirs)
    if killed_at is None:
        os.read(ours, 1)
    else:
        while len(pages(directory)) < killed_at:
            pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ours)
