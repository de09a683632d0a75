"""Small models of very different proportions, with random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgellm.converters.spec import LayerSpec, ModelSpec

ROOT = Path(__file__).parents[2]
N_CTX = 16384


def _spec(
    n_vocab: int, d_model: int, n_layers: int, kv: tuple[int, int, int], d_ffn: int, window: int = 0
) -> ModelSpec:
    """kv: heads, kv heads, head_dim. window: of every other layer."""
    n_heads, n_kv_heads, head_dim = kv
    layers = tuple(
        LayerSpec(n_heads, n_kv_heads, head_dim, d_ffn, window=window if at % 2 else 0)
        for at in range(n_layers)
    )
    return ModelSpec("llama", n_vocab, d_model, N_CTX, 1e-5, True, head_dim, 1.0, 0, (1,), layers)


SHAPES = {
    "much_kv": _spec(512, 64, 8, (8, 8, 128), 128),
    "many_layers": _spec(2048, 256, 24, (4, 4, 64), 512),
    "many_tokens": _spec(128000, 256, 4, (4, 2, 64), 768),
    "much_weight": _spec(32000, 896, 14, (14, 2, 64), 4864),
    "windows": _spec(512, 128, 8, (8, 8, 128), 128, window=512),
}


def make_shape(name: str, directory: Path) -> Path:
    """The file of a model, written once."""
    path = directory / f"{name}.edge"
    if not path.exists():
        where = ROOT / "benchmarks" / "random_edge.py"
        spec = importlib.util.spec_from_file_location("random_edge", where)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.write(SHAPES[name], path)
    return path
