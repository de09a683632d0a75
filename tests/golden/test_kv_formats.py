"""Keys and values of every format: the runtime against the reference's rounding of them, and keys
that the runtime balances and rotates."""

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

PLAIN: dict[str, bool] = {"rotate_keys": False, "balance_keys": False}
CHANGES = [  # of how keys are stored
    PLAIN | {"rotate_keys": True},
    PLAIN | {"balance_keys": True},
    {"rotate_keys": True, "balance_keys": True},
]


def make_edge(folder: Path, case_name: str, change: dict[str, bool]) -> Path:
    case = case_named(case_name)
    out = folder / f"{'-'.join(key for key in change if change[key])}.edge"
    text = np.array([case_ids(case)[:20]] * 2, dtype=np.int32)
    recipe = replace(preset("F16"), **change)
    balanced = change["balance_keys"]
    convert(tiny_checkpoint(folder, case), out, recipe=recipe, held_out=text if balanced else None)
    return out


def native_logits(path: Path, ids: list[int], kv: str) -> npt.NDArray[np.float32]:
    with edgellm.load(path, kv=kv, verify="never") as model:
        return model.logits(ids)


@pytest.mark.parametrize("change", [PLAIN, *CHANGES], ids=["plain", "rotated", "balanced", "both"])
@pytest.mark.parametrize("name", CASE_NAMES)
def test_native_equals_the_reference_in_every_kv_format(
    name: str, change: dict[str, bool], tmp_path: Path
) -> None:
    """But for levels that float noise rounds the other way: each is 1/127 of one channel."""
    path, ids = make_edge(tmp_path, name, change), case_ids(case_named(name))
    reference = Reference.from_edge(path)
    exact = reference.logits(ids, kv="F16").numpy()
    for kv in KV_FORMATS[1:]:
        wanted = reference.logits(ids, kv=kv).numpy()
        found = native_logits(path, ids, kv)
        assert nmse(wanted, found) < 0.02 * nmse(exact, wanted)


def test_f16_keys_are_stored_as_they_are(tmp_path: Path) -> None:
    ids = case_ids(case_named(CASE_NAMES[0]))
    plain = make_edge(tmp_path, CASE_NAMES[0], PLAIN)
    wanted = {kv: native_logits(plain, ids, kv) for kv in ("F16", "K8V8")}
    assert not np.array_equal(wanted["F16"], wanted["K8V8"])
    for change in CHANGES:
        changed = make_edge(tmp_path, CASE_NAMES[0], change)
        assert np.array_equal(native_logits(changed, ids, "F16"), wanted["F16"])
        assert not np.array_equal(native_logits(changed, ids, "K8V8"), wanted["K8V8"])


def test_changed_keys_attend_as_plain_ones_when_a_prompt_is_compressed(tmp_path: Path) -> None:
    """The same heads see the same tokens, but for a few whose shares are nearly equal."""
    ids = [(31 * i + 7) % 60 for i in range(200)]
    kept = []
    for change in (PLAIN, CHANGES[-1]):
        path = make_edge(tmp_path, "single_kv_head_linear_rope", change)
        with edgellm.load(path, kv="K8V8") as model:
            session = _native.Session(model._native, len(ids))
            session.append(ids)
            while not session.run():
                pass
            session.compress(48)  # 12 by their shares in each layer
            kept.append({i for first, end in session.kept_ranges for i in range(first, end)})
    assert len(kept[0] & kept[1]) >= 0.9 * len(kept[0] | kept[1])
