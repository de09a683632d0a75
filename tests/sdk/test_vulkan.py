"""The Vulkan backend through the SDK, on this machine's device or on Mesa's driver for the CPU:
texts, batches, guessing ahead and saved chats are the CPU's, and what cannot be had is a
DeviceError."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgellm
from command_line import edgellm as edgellm_process
from edgellm.cli.exits import Exit
from edgellm.layer_split import STEP_BYTES

LIBRARY = Path(__file__).parents[2] / "build" / "editable" / "libedgellm_vulkan.so"
PROMPT = "Once upon a time there was a little dog. The dog was happy. The dog was"
PROMPTS = (PROMPT, "Lily and Tom went to the park.", "One two three one two three one")


@pytest.fixture(scope="module", autouse=True)
def library(demo_path: Path) -> Iterator[None]:
    if not LIBRARY.exists():
        pytest.skip("NOT TESTED: Vulkan; install packages glslc and libvulkan-dev and build again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGELLM_VULKAN_LIBRARY", str(LIBRARY))
        try:
            edgellm.load(demo_path, backend="vulkan").close()
        except edgellm.DeviceError as error:
            pytest.skip(f"NOT TESTED: {error.message} (Debian: mesa-vulkan-drivers)")
        yield


@pytest.fixture(scope="module")
def cpu(demo_path: Path) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path, threads=1, speculate=False) as model:
        yield model


@pytest.fixture(scope="module", params=[False, "always"], ids=["plain", "guessing"])
def vulkan(
    request: pytest.FixtureRequest, demo_path: Path, library: None
) -> Iterator[edgellm.Model]:
    with edgellm.load(demo_path, threads=1, backend="vulkan", speculate=request.param) as model:
        yield model


def test_a_text_has_the_tokens_and_log_probabilities_of_the_cpu(cpu, vulkan):
    assert vulkan.info().backend == "vulkan"
    for options in ({}, {"temperature": 0.8, "seed": 7}):
        wanted = cpu.generate(PROMPT, max_tokens=8, logprobs=2, **options)
        found = vulkan.generate(PROMPT, max_tokens=8, logprobs=2, **options)
        assert found.token_ids == wanted.token_ids
        assert found.logprobs == wanted.logprobs


def test_a_batch_is_its_prompts_one_by_one(cpu, vulkan):
    together = vulkan.generate_batch(PROMPTS, max_tokens=6, at_once=3)
    alone = [cpu.generate(prompt, max_tokens=6) for prompt in PROMPTS]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


def test_a_chat_saved_on_one_backend_goes_on_at_the_other(cpu, vulkan, tmp_path):
    path = tmp_path / "chat.session"
    with vulkan.chat() as chat:
        chat.send("Say hello.", max_tokens=4)
        chat.save(path)
        wanted = chat.send("And now?", max_tokens=4).token_ids
    with cpu.restore(path) as chat:
        assert chat.send("And now?", max_tokens=4).token_ids == wanted


def test_layers_that_find_no_room_run_on_the_cpu(cpu, demo_path, monkeypatch):
    n_bytes = STEP_BYTES + 256 * cpu.info().kv_bytes_per_token + demo_path.stat().st_size // 2
    monkeypatch.setenv("EDGELLM_VULKAN_MEMORY", str(n_bytes))
    with edgellm.load(demo_path, n_ctx=256, threads=1, backend="vulkan", speculate=False) as split:
        assert split.info().host_layers > 0
        wanted = cpu.generate(PROMPT, max_tokens=4).token_ids
        assert split.generate(PROMPT, max_tokens=4).token_ids == wanted


def test_the_command_line_computes_on_vulkan(cpu, tmp_path):
    words = ("run", "demo", PROMPT, "--max-tokens", 4, "--temperature", 0)
    found = edgellm_process(*words, "--backend", "vulkan", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == cpu.generate(PROMPT, max_tokens=4).text.strip()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("VK_ICD_FILENAMES", "/nowhere/driver.json", "Vulkan: no"),
        ("EDGELLM_VULKAN_DEVICE", "abacus", "lacks the name in EDGELLM_VULKAN_DEVICE"),
    ],
)
def test_without_a_device_that_will_do_there_is_a_device_error(tmp_path, variable, value, said):
    words = ("run", "demo", "Once", "--backend", "vulkan")
    run = edgellm_process(*words, cwd=tmp_path, env={variable: value})
    assert run.returncode == Exit.INTERNAL
    assert said in run.stderr
    assert "load with backend 'cpu'" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_child_of_the_process_gets_an_error(demo_path):
    script = (
        "import edgellm, os\n"
        f"with edgellm.load({str(demo_path)!r}, backend='vulkan') as model:\n"
        "    if os.fork() == 0:\n"
        "        try:\n"
        "            model.generate('Once', max_tokens=2)\n"
        "        except edgellm.DeviceError as error:\n"
        "            os._exit(7 if error.code == 'device_failed' else 1)\n"
        "        os._exit(2)\n"
        "    raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], check=False, timeout=100)
    assert run.returncode == 7
