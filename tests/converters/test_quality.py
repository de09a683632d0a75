"""What a conversion says of itself: in the file, in reports, and by `edgellm inspect`."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgellm.converters import (
    BUILTIN_TEXT,
    CalibrationTokens,
    convert,
    plan_conversion,
    read_recipe,
)
from edgellm.converters.calibrate.held_out import split_tokens
from edgellm.converters.checkpoint import Checkpoint
from edgellm.converters.plan import Job, Options
from edgellm.converters.report import bits_by_part

from edgellm import edgefile
from edgellm.cli import run_command_line
from edgellm.errors import FormatError, UnsupportedError

torch = pytest.importorskip("torch")


def windows(seed: int, n_windows: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    ids = np.random.default_rng(seed).integers(2, 258, (n_windows, 32))
    return ids.astype(np.int32)


def written_report(path: Path) -> dict[str, Any]:
    return dict(json.loads(bytes(edgefile.read_tensor(path, "report"))))


@pytest.fixture(scope="module")
def converted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("quality") / "a.edge"
    tokens = CalibrationTokens(windows(1, 4))
    return out, convert(tiny_checkpoint, out, calibration=tokens, held_out=windows(2, 3))


def test_figures_are_those_of_the_written_file_run_whole(
    tiny_checkpoint: Path, converted: tuple[Path, Any]
) -> None:
    from edgellm.converters.reference import Reference

    out, report = converted
    before, after = Reference.from_checkpoint(tiny_checkpoint), Reference.from_edge(out)
    kl, same, loss_before, loss_after = [], [], [], []
    for window in windows(2, 3).tolist():
        p, q = (torch.log_softmax(m.logits(window).double(), -1) for m in (before, after))
        kl.append(float((p.exp() * (p - q)).sum(-1).mean()))
        same.append(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
        places = torch.tensor(window[1:])[:, None]
        loss_before.append(-float(p[:-1].gather(1, places).mean()))
        loss_after.append(-float(q[:-1].gather(1, places).mean()))
    found = report.quality.divergence
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-3)
    assert found.top1 == pytest.approx(np.mean(same))
    assert found.loss_before == pytest.approx(np.mean(loss_before), rel=1e-5)
    assert found.loss_after == pytest.approx(np.mean(loss_after), rel=1e-5)
    assert found.perplexity_after == pytest.approx(math.exp(np.mean(loss_after)), rel=1e-4)
    sample = report.quality.samples[0]
    ids = windows(2, 3)[0].tolist()[:16]
    for _ in range(24):
        ids.append(int(after.logits(ids)[-1].argmax()))
    from edgellm._native import Tokenizer

    tokenizer = Tokenizer.from_blob(bytes(edgefile.read_tensor(out, "tokenizer")))
    assert sample.after == tokenizer.decode(ids[16:])
    assert sample.prompt == tokenizer.decode(ids[:16])


def test_the_file_holds_figures_but_nothing_of_the_machine(converted: tuple[Path, Any]) -> None:
    out, report = converted
    found = written_report(out)
    assert found["quality"]["divergence"]["kl"] == report.divergence.kl
    assert found["bits_by_part"] == report.bits_by_part
    assert not {"seconds", "peak_rss_bytes", "path"} & set(found)


def test_bits_by_part_weigh_tensors_by_their_size(tiny_checkpoint: Path) -> None:
    plan = plan_conversion(tiny_checkpoint, format="E4_16", embed_format="F16")
    found = bits_by_part(plan.tensors)
    assert set(found) == {"embedding", "attention", "ffn", "vectors"}
    assert found["vectors"] == 32
    assert found["embedding"] > 16 > found["ffn"] > 4.5
    ffn = [t for t in plan.tensors if t.role.startswith("ffn_") and t.act]
    bits = 8 * sum(t.n_bytes for t in ffn) / sum(t.n_weights for t in ffn)
    assert found["ffn"] == pytest.approx(bits)


def test_a_plain_conversion_measures_nothing_and_says_so(
    tiny_edge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert written_report(tiny_edge)["quality"] is None
    assert run_command_line(["inspect", str(tiny_edge)]) == 0
    assert "not measured when it was converted" in capsys.readouterr().out


def test_inspect_shows_what_was_measured(
    converted: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = converted
    assert run_command_line(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"KL {report.divergence.kl:.6f} nats" in shown
    assert "96 held-out tokens" in shown
    assert run_command_line(["inspect", str(out), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["quality"]["divergence"]["kl"] == report.divergence.kl


@pytest.mark.parametrize(
    "blob",
    [
        b"[]",
        b'{"tensors": 3, "quality": [], "bits_by_part": 1}',
        b'{"tensors": [1, {"rel_rms_error": "x"}], "quality": {"divergence": {"kl": "x"}}}',
        b'{"quality": {"divergence": {"kl": true}}, "bits_by_part": {"a": "b"}}',
    ],
)
def test_inspect_shows_files_whose_report_is_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], blob: bytes
) -> None:
    path = tmp_path / "odd.edge"
    with edgefile.EdgeWriter(path, spec={"arch": "x"}) as writer:
        writer.append("report", "report", blob)
    assert run_command_line(["inspect", str(path)]) == 0
    assert "odd.edge" in capsys.readouterr().out


def test_reports_have_figures_samples_and_recipe_as_text(
    converted: tuple[Path, Any], tmp_path: Path
) -> None:
    from edgellm.cli.convert_report import write_convert_report

    report = converted[1]
    for name in ("a.md", "a.html"):
        write_convert_report(report, tmp_path / name)
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert f"{report.divergence.kl:.6f} nats" in text
        assert "embedding" in text
        assert "gptq" in text
        assert CalibrationTokens(windows(1, 4)).digest in text
        assert "<script" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.md"]


def test_without_torch_the_extra_is_named(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedError, match=r"edgellm\[compress\]"):
        convert(tiny_checkpoint, tmp_path / "a.edge", held_out=windows(2, 1))
    assert list(tmp_path.iterdir()) == []


# ---- which text calibrates, and which is held out


RECIPE = """
[calibration]
n_windows = {n_windows}
window_tokens = 32
[[rules]]
pattern = "*.attn_q"
format = "E4_16"
method = "importance"
[[rules]]
pattern = "*"
format = "E4_16"
"""


def recipe(folder: Path, n_windows: int) -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(n_windows=n_windows), encoding="utf-8")
    return path


def split(
    checkpoint: Path, edge: Path, folder: Path, n_windows: int, **more: bool
) -> tuple[int, int, int]:
    """34 windows of text: how many calibrate, are held out, and stand in the recipe."""
    text = folder / "a.jsonl"
    line = json.dumps({"text": "x" * 31})  # and the start token
    text.write_text(f"{line}\n" * 34, encoding="utf-8")
    chosen = read_recipe(recipe(folder, n_windows))
    blobs = {"tokenizer": bytes(edgefile.read_tensor(edge, "tokenizer"))}
    with Checkpoint(checkpoint) as opened:
        job = Job(opened, Options(None, None, None, None, chosen, calibrated=True))
        tokens, held_out = split_tokens(job, [text], blobs, **more)
    n_held_out = 0 if held_out is None else len(held_out)
    return len(tokens.windows), n_held_out, job.recipe.calibration.n_windows


@pytest.mark.parametrize(("n_windows", "n_held_out"), [(10, 8), (31, 3), (34, 0)])
def test_what_is_beyond_the_calibration_windows_is_held_out(
    tiny_checkpoint: Path, tiny_edge: Path, tmp_path: Path, n_windows: int, n_held_out: int
) -> None:
    found = split(tiny_checkpoint, tiny_edge, tmp_path, n_windows)
    assert found == (n_windows, n_held_out, n_windows)


def test_short_text_is_refused_or_divided(
    tiny_checkpoint: Path, tiny_edge: Path, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=r"a\.jsonl.*32 need 1280"):
        split(tiny_checkpoint, tiny_edge, tmp_path, 40)
    found = split(tiny_checkpoint, tiny_edge, tmp_path, 40, as_many_as_there_are=True)
    assert found == (30, 4, 30)


def test_the_built_in_text_is_valid_varied_and_small() -> None:
    data = BUILTIN_TEXT.read_bytes()
    assert 40_000 <= len(data) <= 60_000
    records = [json.loads(line) for line in data.decode("utf-8").splitlines()]
    assert all(list(record) == ["text"] for record in records)
    texts = [record["text"] for record in records]
    assert len(set(texts)) == len(texts) >= 40
    together = "".join(texts)
    for script in (
        "\u043f",
        "\u3042",
        "\u7684",
        "\u0639",
        "\u0915",
        "é",
        "{",
        "def ",
        "SELECT",
        "User:",
    ):
        assert script in together


def test_the_built_in_text_calibrates_by_name(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """28 windows or so, whatever the recipe says, and the file says how many."""
    checkpoint = tmp_path / "model"
    shutil.copytree(shared_data / "models" / "stories260K", checkpoint)
    out = tmp_path / "a.edge"
    toml = tmp_path / "r.toml"
    toml.write_text(RECIPE.format(n_windows=60000).replace("32\n", "64\n"), encoding="utf-8")
    options = ["--calibration", "builtin", "--recipe", str(toml), "--report"]
    code = run_command_line(
        ["convert", str(checkpoint), str(out), *options, str(tmp_path / "r.md"), "--json"]
    )
    assert code == 0
    data = json.loads(capsys.readouterr().out)["data"]
    used = json.loads(data["recipe_json"])["calibration"]
    assert 100 < used["n_windows"] < 2000
    assert data["quality"]["divergence"]["n_tokens"] == 8 * 64
    assert "held-out text" in (tmp_path / "r.md").read_text(encoding="utf-8")
