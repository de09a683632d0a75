"""Calibrated conversions: texts to tokens, moments layer by layer, resume, the recipe's blob."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import CalibrationTokens, convert, plan_conversion
from edgellm.converters.calibrate import read_tokens
from edgellm.converters.calibrate.work import WorkDir
from edgellm.converters.recipe import CalibrationOptions

import tiny_model
from edgellm import edgefile
from edgellm._native import Tokenizer
from edgellm.chat_template import CHATML, ChatTemplate
from edgellm.errors import FormatError, InvalidArgumentError
from golden.tiny import CASES
from golden.tiny import tiny_checkpoint as golden_checkpoint

torch = pytest.importorskip("torch")


RECIPE = """
[[rules]]
pattern = "layers.*"
format = "E4_16"
method = "gptaq"
n_passes = 0
[[rules]]
pattern = "*"
format = "E4_16"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "quick.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def tokens(n_windows: int = 6, window_tokens: int = 24) -> CalibrationTokens:
    ids = np.random.default_rng(3).integers(2, 258, (n_windows, window_tokens))
    return CalibrationTokens(ids.astype(np.int32))


@pytest.fixture
def tokenizer(tiny_edge: Path) -> Tokenizer:
    return Tokenizer.from_blob(bytes(edgefile.read_tensor(tiny_edge, "tokenizer")))


# ---- tokens


def test_text_and_json_lines_become_windows_of_the_models_tokens(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("plain text\n" * 4, encoding="utf-8")
    line = json.dumps({"text": "from a line", "source": "ignored"})
    (tmp_path / "b.jsonl").write_text(f"{line}\n\n", encoding="utf-8")
    paths = [tmp_path / "a.txt", tmp_path / "b.jsonl"]
    found = read_tokens(paths, tokenizer, None, CalibrationOptions(5, 9))
    assert found.windows.shape == (5, 9)
    text = tokenizer.decode(found.windows.reshape(-1).tolist())
    assert "plain text" in text
    assert "from a l" in text
    again = read_tokens(paths, tokenizer, None, CalibrationOptions(5, 9))
    assert again.digest == found.digest
    other = read_tokens(paths, tokenizer, None, CalibrationOptions(4, 9))
    assert other.digest != found.digest


def test_chat_logs_go_through_the_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    options = CalibrationOptions(2, 20)
    found = read_tokens([path], tokenizer, ChatTemplate(CHATML), options)
    assert tokenizer.decode(found.windows.reshape(-1).tolist()).startswith("<|im_start|>user\nHi")
    with pytest.raises(FormatError, match=r"chat\.jsonl.*no chat template"):
        read_tokens([path], tokenizer, None, options)


def test_a_converted_model_gives_its_own_text(tokenizer: Tokenizer, tiny_edge: Path) -> None:
    options = CalibrationOptions(3, 20)
    found = read_tokens([tiny_edge], tokenizer, None, options).windows
    assert found.shape == (3, 20)
    assert set(found[:, 0]) == {tiny_model.BOS}
    assert len({tuple(window) for window in found.tolist()}) == 3
    again = read_tokens([tiny_edge], tokenizer, None, options).windows
    np.testing.assert_array_equal(again, found)
    with pytest.raises(InvalidArgumentError, match="n_ctx is 129"):
        read_tokens([tiny_edge], tokenizer, None, CalibrationOptions(1, tiny_model.N_CTX + 1))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"text": 1}', "json_type"),
        (b"[1]", "json_type"),
        (b"{", "json_syntax"),
        (b"[" * 100_000, "json_syntax"),
        (b'{"text": "\xff"}', "json_syntax"),
        (b'{"text": "\\ud800"}', "json_syntax"),
        (b'{"text": "short"}', "file_too_small"),
    ],
)
def test_a_bad_calibration_file_is_named(
    tokenizer: Tokenizer, tmp_path: Path, content: bytes, code: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"bad\.jsonl") as caught:
        read_tokens([path], tokenizer, None, CalibrationOptions(2, 20))
    assert caught.value.code == code
    with pytest.raises(FormatError, match="no such file"):
        read_tokens([tmp_path / "none.txt"], tokenizer, None, CalibrationOptions(2, 20))


# ---- moments


def test_moments_are_those_of_the_whole_models_inputs(tiny_checkpoint: Path) -> None:
    """Layer by layer, threads and all: the same as a look into one plain forward pass."""
    from edgellm.converters.calibrate.walk import Walk
    from edgellm.converters.reference import Reference

    class Seen(Reference):
        def linear(self, x: Any, name: str) -> Any:
            inputs.setdefault(name, []).append(x.double())
            return super().linear(x, name)

    inputs: dict[str, list[Any]] = {}
    plain = Reference.from_checkpoint(tiny_checkpoint)
    seen = Seen(plain.spec, plain.weights)
    windows = tokens().windows
    for window in windows:
        seen.logits(window.tolist())
    other = {name: w * 1.1 for name, w in plain.weights.items()}
    table = plain.weights["token_embd"].numpy()
    inv_freq = plain.weights["rope_inv_freq"].numpy()
    found = []
    for n_threads in (1, 3):
        walk = Walk(
            plain.spec, {"rope_inv_freq": inv_freq}, table[windows], table[windows], n_threads
        )
        walk.advance(0, plain.weights, plain.weights)
        found.append(walk.measure(1, plain.weights, other, ("ffn_down",)))
    np.testing.assert_array_equal(found[0].moments, found[1].moments)
    x = torch.cat(inputs["layers.1.ffn_down"])
    np.testing.assert_allclose(found[0].moments, (x.T @ x / len(x)).numpy(), rtol=1e-4, atol=1e-7)
    assert found[0].drift is not None
    assert np.abs(found[0].drift).max() > 1e-3 * np.abs(found[0].moments).max()
    same = Walk(plain.spec, {"rope_inv_freq": inv_freq}, table[windows], table[windows], 1)
    assert not same.measure(0, plain.weights, plain.weights, ("attn_o",)).drift.any()


# ---- conversions


def convert_tiny(source: Path, out: Path, recipe: Path, **options: Any) -> bytes:
    convert(source, out, recipe=recipe, calibration=tokens(), **options)
    return out.read_bytes()


def test_calibrated_bytes_do_not_depend_on_threads_or_a_kept_work_directory(
    tiny_checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    plain = convert_tiny(tiny_checkpoint, tmp_path / "a.edge", recipe, n_threads=1)
    assert convert_tiny(tiny_checkpoint, tmp_path / "b.edge", recipe, n_threads=2) == plain
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.edge", "b.edge"]
    work = tmp_path / "work"
    assert convert_tiny(tiny_checkpoint, tmp_path / "c.edge", recipe, work_dir=work) == plain
    strips = sorted(work.glob("*/*.strips"))
    assert len(strips) == 14
    strips[3].write_bytes(strips[3].read_bytes()[:-1])
    spoiled = bytearray(strips[7].read_bytes())
    spoiled[-1] ^= 1
    strips[7].write_bytes(spoiled)
    assert convert_tiny(tiny_checkpoint, tmp_path / "d.edge", recipe, work_dir=work) == plain


def test_the_file_tells_its_recipe_and_the_digest_of_its_calibration(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.edge"
    convert(tiny_checkpoint, out, calibration=tokens())
    recipe = json.loads(bytes(edgefile.read_tensor(out, "recipe")))
    assert recipe["calibration"]["sha256"] == tokens().digest
    methods = {rule["pattern"]: rule.get("method", {}).get("name") for rule in recipe["rules"]}
    assert methods["attn_*"] == methods["*"] == "gptq"
    assert methods["token_embd"] is None
    convert(tiny_checkpoint, out)
    plain = json.loads(bytes(edgefile.read_tensor(out, "recipe")))
    assert "calibration" not in plain
    assert not any("method" in rule for rule in plain["rules"])


def test_progress_names_every_matrix_and_can_cancel(tiny_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def stop(state: Any) -> None:
        seen.append(f"{state.stage} {state.tensor}")
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tiny_checkpoint, tmp_path / "a.edge", calibration=tokens(), progress=stop)
    assert seen == [f"calibrate layers.0.attn_{role}" for role in "qkv"]
    assert not (tmp_path / "a.edge").exists()
    assert len(list((tmp_path / "a.edge.work").glob("*/*.strips"))) == 3


def test_what_cannot_be_honoured_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.edge"
    with pytest.raises(InvalidArgumentError, match="uses no calibration text"):
        convert(tiny_checkpoint, out, format="F16", calibration=tokens())
    far = CalibrationTokens(np.full((1, 8), 258, dtype=np.int32))
    with pytest.raises(FormatError, match="the model has 258"):
        convert(tiny_checkpoint, out, calibration=far)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[rules]]\npattern = "*"\nformat = "E4_16"\nmethod = "gptaq"\n')
    with pytest.raises(InvalidArgumentError, match=r"embedding is the head, too.*not 'gptaq'"):
        plan_conversion(tiny_checkpoint, recipe=recipe, calibration=[out])
    with pytest.raises(InvalidArgumentError, match=r"embedding is looked up.*not 'gptaq'"):
        plan_conversion(golden_checkpoint(tmp_path, CASES[1]), recipe=recipe, calibration=[out])
    recipe.write_text(
        '[[rules]]\npattern = "layers.*"\nformat = "E4_16"\nmethod = "gptq"\n'
        '[[rules]]\npattern = "*"\nformat = "E8_32"\n'
    )
    with pytest.raises(InvalidArgumentError, match="needs calibration text: --calibration"):
        plan_conversion(tiny_checkpoint, recipe=recipe)
    with pytest.raises(InvalidArgumentError, match="a recipe chooses formats"):
        plan_conversion(tiny_checkpoint, recipe=recipe, format="E4_16", calibration=[out])
    with pytest.raises(InvalidArgumentError, match="work_dir"):
        convert(tiny_checkpoint, out, work_dir=tmp_path)
    assert not out.exists()


def test_a_head_of_its_own_is_calibrated_on_what_it_sees(tmp_path: Path) -> None:
    """The mean squared error of the logits, layers being equal; measured 0.71 of rtn's."""
    from edgellm.converters.reference import Reference

    case = CASES[1]  # untied
    source = golden_checkpoint(tmp_path, case)
    ids = np.random.default_rng(4).integers(0, case["vocab_size"], (24, 32)).astype(np.int32)
    original = Reference.from_checkpoint(source)
    errors = []
    for method in ("rtn", "gptq"):
        recipe = tmp_path / f"{method}.toml"
        recipe.write_text(
            f'[[rules]]\npattern = "output"\nformat = "E4_16"\nmethod = "{method}"\n'
            '[[rules]]\npattern = "*"\nformat = "F16"\n',
            encoding="utf-8",
        )
        out = tmp_path / f"{method}.edge"
        calibration = CalibrationTokens(ids) if method == "gptq" else ()
        convert(source, out, recipe=recipe, calibration=calibration)
        converted = Reference.from_edge(out)
        errors.append(
            np.mean(
                [
                    float((original.logits(window) - converted.logits(window)).square().mean())
                    for window in ids.tolist()
                ]
            )
        )
    assert errors[1] < 0.85 * errors[0]


def test_a_tied_head_is_calibrated_on_what_it_sees(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits' error with the table multiplied only: looked up, the original's rows."""
    from edgellm.converters.reference import Reference

    original = Reference.from_checkpoint(tiny_checkpoint)
    ids = tokens(24, 32)
    hidden = torch.cat([_last_hidden(original, window) for window in ids.windows.tolist()])
    errors, files = [], []
    for method in ("rtn", "gptq"):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(
            f'[[rules]]\npattern = "token_embd"\nformat = "E4_16"\nmethod = "{method}"\n'
            '[[rules]]\npattern = "*"\nformat = "F16"\n',
            encoding="utf-8",
        )
        out = tmp_path / f"{method}.edge"
        convert(tiny_checkpoint, out, recipe=recipe, calibration=ids if method == "gptq" else ())
        files.append(out.read_bytes())
        table = Reference.from_edge(out).weights["token_embd"]
        errors.append(float((hidden @ (table - original.weights["token_embd"]).T).square().mean()))
    assert errors[1] < 0.85 * errors[0]
    # In blocks of rows, which do not see each other. None of them has but a few: BLAS of some
    # processors sums two rows in another order than many.
    monkeypatch.setattr("edgellm.converters.calibrate.tied.BLOCK_ROWS", 96)
    monkeypatch.setattr("edgellm.converters.calibrate.run.EMBED_BLOCK_ROWS", 96)
    convert(tiny_checkpoint, out, recipe=recipe, calibration=ids)
    assert out.read_bytes() == files[1]


def _last_hidden(model: Any, window: list[int]) -> Any:
    x = model.embed(window)
    for index in range(len(model.spec.layers)):
        x = model.block(x, index)
    return model.final_norm(x)


# ---- resume

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import numpy as np
from edgellm.converters import CalibrationTokens, convert, read_recipe
from edgellm.converters.calibrate.work import WorkDir
kill_at, n_writes = int(sys.argv[3]), 0
def counted(function):
    def wrapper(*args, **kwargs):
        global n_writes
        if n_writes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        n_writes += 1
        return function(*args, **kwargs)
    return wrapper
os.rename, os.replace = counted(os.rename), counted(os.replace)
Path.replace, WorkDir.store = counted(Path.replace), counted(WorkDir.store)
tokens = CalibrationTokens(np.load(sys.argv[4], allow_pickle=False))
recipe = read_recipe(Path(sys.argv[5]))
convert(Path(sys.argv[1]), Path(sys.argv[2]), recipe=recipe, calibration=tokens, n_threads=1)
"""


def kill_and_resume(source: Path, folder: Path, recipe: Path, kill_at: int) -> tuple[int, bytes]:
    """Exit status of the run that is killed before its kill_at-th write, and the bytes that the
    next run gives."""
    folder.mkdir()
    out, saved = folder / "a.edge", folder / "tokens.npy"
    np.save(saved, tokens().windows)
    script = KILLED.format(paths=[path for path in sys.path if path])
    command = [sys.executable, "-P", "-c", script, str(source), str(out), str(kill_at)]
    command += [str(saved), str(recipe)]
    status = subprocess.run(command, env=os.environ, timeout=120, check=False).returncode
    if status == -signal.SIGKILL:
        assert not out.exists()
    return status, convert_tiny(source, out, recipe, n_threads=1)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_conversion_goes_on_to_the_same_bytes(
    tiny_checkpoint: Path, recipe: Path, tmp_path: Path
) -> None:
    plain = convert_tiny(tiny_checkpoint, tmp_path / "plain.edge", recipe, n_threads=1)
    status, resumed = kill_and_resume(tiny_checkpoint, tmp_path / "killed", recipe, 11)
    assert status == -signal.SIGKILL
    assert resumed == plain


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 61 conversions
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_every_write(tiny_checkpoint: Path, recipe: Path, tmp_path: Path) -> None:
    """Before 30 of the steps that store 14 matrices: entering, renaming, the system call."""
    plain = convert_tiny(tiny_checkpoint, tmp_path / "plain.edge", recipe, n_threads=1)
    killed = 0
    for kill_at in range(30):
        status, resumed = kill_and_resume(
            tiny_checkpoint, tmp_path / f"at{kill_at}", recipe, kill_at
        )
        killed += status == -signal.SIGKILL
        assert resumed == plain, kill_at
    assert killed == 30


def test_a_work_directory_gives_back_only_what_was_stored(tmp_path: Path) -> None:
    work = WorkDir(tmp_path / "work", "a" * 64)
    strips = np.arange(200, dtype=np.uint8)
    work.store("layers.0.attn_q", strips)
    np.testing.assert_array_equal(work.load("layers.0.attn_q", 200), strips)
    assert work.load("layers.0.attn_q", 199) is None
    assert work.load("layers.0.attn_k", 200) is None
    assert WorkDir(tmp_path / "work", "b" * 64).load("layers.0.attn_q", 200) is None
    work.remove()
    assert work.load("layers.0.attn_q", 200) is None
