"""Keys and values of every format: the runtime against the reference's rounding of them, and keys
that the runtime rotates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from edgellm.converters import convert
from edgellm.converters.recipe import preset
from edgellm.converters.reference import Reference

import edgellm
from edgellm import _native
from edgellm.options import KV_FORMATS
from golden.measures import nmse
from golden.tiny import CASE_NAMES, case_ids, case_named, tiny_checkpoint


def make_edge(folder: Path, case_name: str, rotate_keys: bool) -> Path:
    case = case_named(case_name)
    out = folder / f"{rotate_keys}.edge"
    recipe = replace(preset("F16"), rotate_keys=rotate_keys)
    convert(tiny_checkpoint(folder, case), out, recipe=recipe)
    return out


def native_logits(path: Path, ids: list[int], kv: str) -> npt.NDArray[np.float32]:
    with edgellm.load(path, kv=kv, verify="never") as model:
        return model.logits(ids)


@pytest.mark.parametrize("rotate_keys", [False, True])
@pytest.mark.parametrize("name", CASE_NAMES)
def test_native_equals_the_reference_in_every_kv_format(
    name: str, rotate_keys: bool, tmp_path: Path
) -> None:
    """But for levels that float noise rounds the other way: each is 1/127 of one channel."""
    path, ids = make_edge(tmp_path, name, rotate_keys), case_ids(case_named(name))
    reference = Reference.from_edge(path)
    exact = reference.logits(ids, kv="F16").numpy()
    for kv in KV_FORMATS[1:]:
        wanted = reference.logits(ids, kv=kv).numpy()
        found = native_logits(path, ids, kv)
        assert nmse(wanted, found) < 0.02 * nmse(exact, wanted)


def test_with_f16_keys_nothing_is_rotated(tmp_path: Path) -> None:
    ids = case_ids(case_named(CASE_NAMES[0]))
    plain, rotated = (make_edge(tmp_path, CASE_NAMES[0], rotate) for rotate in (False, True))
    logits = [native_logits(path, ids, "F16") for path in (plain, rotated)]
    assert np.array_equal(*logits)
    assert not np.array_equal(logits[0], native_logits(rotated, ids, "K8V8"))
    assert not np.array_equal(*(native_logits(path, ids, "K8V8") for path in (plain, rotated)))


def test_rotated_keys_attend_as_plain_ones_when_a_prompt_is_compressed(tmp_path: Path) -> None:
    """The same heads see the same tokens, but for a few whose shares are nearly equal."""
    ids = [(31 * i + 7) % 60 for i in range(200)]
    kept = []
    for rotate in (False, True):
        path = make_edge(tmp_path, "single_kv_head_linear_rope", rotate)
        with edgellm.load(path, kv="K8V8") as model:
            session = _native.Session(model._native, len(ids))
            session.append(ids)
            while not session.run():
                pass
            session.compress(48)  # 12 by their shares in each layer
            kept.append({i for first, end in session.kept_ranges for i in range(first, end)})
    assert len(kept[0] & kept[1]) >= 0.9 * len(kept[0] | kept[1])
