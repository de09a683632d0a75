"""A trained model: calibration pays on text that it has not seen, through the native runtime."""

from __future__ import annotations

import json
import lzma
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert

import edgellm
from edgellm.errors import EdgeError

torch = pytest.importorskip("torch")

CALIBRATION = """
[calibration]
n_windows = 24
window_tokens = 256
[[rules]]
pattern = "layers.[01].*"
format = "E4_16"
method = "gptq"
n_passes = 0
[[rules]]
pattern = "*"
format = "E8_32"
"""
PLAIN = CALIBRATION.replace('method = "gptq"\nn_passes = 0\n', "")


def texts(data: Path, split: str, n: int, stride: int) -> list[str]:
    with lzma.open(data / "corpus" / f"{split}.jsonl.xz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in islice(lines, 0, n * stride, stride)]


def kl_native(path: Path, original: list[np.ndarray], windows: np.ndarray) -> float:
    """KL(original || file) in nats per token."""
    found = []
    with edgellm.load(path, kv="F16") as model:
        for wanted, window in zip(original, windows, strict=True):
            got = torch.log_softmax(torch.from_numpy(model.logits(window.tolist())), dim=-1)
            log_p = torch.log_softmax(torch.from_numpy(wanted), dim=-1)
            found.append(float((log_p.exp() * (log_p - got)).sum(-1).mean()))
    return float(np.mean(found))


def test_calibration_lowers_the_divergence_of_a_trained_model(
    shared_data: Path, tmp_path: Path
) -> None:
    """Two layers in 4 bits, to be quick; int8 activations included. Calibrated on the train split,
    measured on other books and repositories."""
    from edgellm.converters.reference import Reference

    checkpoint = shared_data / "models" / "seed6m"
    text = tmp_path / "text.jsonl"
    lines = (json.dumps({"text": text}) for text in texts(shared_data, "train", 120, 7))
    text.write_text("\n".join(lines), encoding="utf-8")
    paths = {}
    for name, recipe in (("plain", PLAIN), ("gptq", CALIBRATION)):
        (tmp_path / f"{name}.toml").write_text(recipe, encoding="utf-8")
        paths[name] = tmp_path / f"{name}.edge"
        calibration = [text] if name == "gptq" else []
        recipe_path = tmp_path / f"{name}.toml"
        convert(checkpoint, paths[name], recipe=recipe_path, calibration=calibration)
    with edgellm.load(paths["plain"]) as model:
        ids = [id for text in texts(shared_data, "valid", 12, 90) for id in model.tokenize(text)]
    windows = np.array(ids[: 6 * 256]).reshape(6, 256)
    reference = Reference.from_checkpoint(checkpoint)
    original = [reference.logits(window.tolist()).numpy() for window in windows]
    plain = kl_native(paths["plain"], original, windows)
    calibrated = kl_native(paths["gptq"], original, windows)
    assert calibrated < 0.7 * plain


def test_a_plain_recipe_refuses_calibration_text(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(PLAIN, encoding="utf-8")
    with pytest.raises(EdgeError, match="uses no calibration text"):
        convert(
            shared_data / "models" / "seed6m",
            tmp_path / "a.edge",
            recipe=path,
            calibration=[path],
        )
