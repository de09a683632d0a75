"""Core ML packages: saved, read again and executed in numpy, with their state; on any machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgellm.converters import convert
from edgellm.converters.npu import NpuOptions, export_npu
from edgellm.converters.npu.compare import difference

from edgellm.errors import UnsupportedError
from edgellm.npu.bundle import read_bundle
from edgellm.npu.model import NpuModel
from edgellm.npu.session import GraphSession, generate
from golden.tiny import SHARED_MODELS, shared_model
from npu.conftest import Keep
from npu.running import session_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    # Of coremltools and what it imports, as they are.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]
coremltools = pytest.importorskip(
    "coremltools", reason="NOT TESTED: Core ML; pip install coremltools"
)


@pytest.mark.parametrize("name", SHARED_MODELS)
@pytest.mark.parametrize("format", ["F16", "L4_32"])
def test_whole_models_in_half_precision(name: str, format: str, tmp_path: Path, measured: Keep):
    edge = tmp_path / "model.edge"
    convert(shared_model(name), edge, format=format, act="f32")
    options = NpuOptions(rows=(1, 16), context=64)
    report = export_npu(edge, tmp_path / "npu", "npu:apple", options, against=edge)
    assert report.difference is not None
    measured(name, "npu:apple, interpreted, half", format, report.difference)
    assert report.difference.relative <= 1e-2
    assert report.difference.top1 == 1


@pytest.mark.parametrize("name", SHARED_MODELS)
def test_whole_models_in_float32(name: str, tmp_path: Path, measured: Keep):
    source, out = shared_model(name), tmp_path / "npu"
    export_npu(source, out, "npu:apple", NpuOptions(rows=(1, 16), context=64, bits=32))
    exact = session_of(source, [(16, 64)], bits=32, kv_dtype="f16")
    ids = list(range(1, 65))
    found = difference(session_in(out).append(ids), exact.append(ids))
    measured(name, "npu:apple, interpreted, float32, against the graph in numpy", "F32", found)
    assert found.relative <= 1e-3
    assert found.top1 >= 0.98


def session_in(folder: Path) -> GraphSession:
    """Of a saved bundle with one part."""
    from edgellm.converters.npu.mil_interpreter import Package

    bundle = read_bundle(folder)
    package = Package(folder / "part0.mlpackage")
    runners = {graph.name: package.runner(graph.name) for graph in bundle.graphs}
    return GraphSession(bundle.facts, bundle.graphs, runners)


def test_functions_share_weights_and_state(tiny: Path, tmp_path: Path):
    sizes = []
    for rows in ((1,), (1, 4, 8)):
        out = tmp_path / f"npu{len(rows)}"
        export_npu(tiny, out, "npu:apple", NpuOptions(rows=rows, context=32, bits=16))
        sizes.append(next(out.rglob("weight.bin")).stat().st_size)
    assert sizes[1] < 1.2 * sizes[0]
    assert read_bundle(out).facts.stateful
    session = session_in(out)
    ids = list(range(2, 31))
    whole = session.append(ids)
    session.rewind(0)
    one_by_one = np.concatenate([session.append([one]) for one in ids])
    np.testing.assert_allclose(one_by_one, whole, atol=2e-2)
    prompt = [2, 3, 4, 5, 2, 3]
    plain = list(generate(session, prompt, 20))
    assert list(generate(session, prompt, 20, speculate=True)) == plain


def test_the_sdk_says_that_it_runs_no_packages(tiny: Path, tmp_path: Path):
    export_npu(tiny, tmp_path / "npu", "npu:apple", NpuOptions(rows=(1,), context=8))
    with pytest.raises(UnsupportedError, match="'apple'"):
        NpuModel(tmp_path / "npu")
