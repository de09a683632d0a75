"""How large a pruned model's file will be, and how fast it can decode, before anything is cut.

The size is that of the conversion's own plan, made from the pruned config.json. The speed is a
bound from above: every token reads each of its weights once, at the bandwidth of plain reads.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm._native import measure_read_bandwidth
from edgellm.edgeheader import TensorInfo

from ..pipeline import plan_conversion
from ..report import ConvertPlan, PlannedTensor
from .options import PredictOptions


@dataclass(frozen=True)
class Prediction:
    """file_bytes: of the .edge file without its tokenizer. bytes_per_token: of the weights that a
    decoded token reads; a looked-up embedding is one row, of experts those that are used."""

    n_weights: int
    file_bytes: int
    bytes_per_token: int
    tokens_per_s: float


@dataclass(frozen=True)
class Predictions:
    before: Prediction
    after: Prediction
    basis: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Predictor:
    def __init__(self, options: PredictOptions) -> None:
        self._format = options.format
        given = options.bandwidth_gb_per_s
        self._bytes_per_s = given * 1e9 or measure_read_bandwidth()
        kind = "given" if given else "measured now, plain reads, all performance cores"
        self.basis = (
            f"{options.format or 'the default recipe'}; the weights that a token reads at "
            f"{self._bytes_per_s / 1e9:.2f} GB/s ({kind}); keys, values and arithmetic not counted"
        )

    def of(self, config: dict[str, Any], generation: dict[str, Any]) -> Prediction:
        """Of a model that has this config.json."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for name, value in (("config", config), ("generation_config", generation)):
                (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
            plan = plan_conversion(folder, format=self._format)
        n_bytes = bytes_per_token(plan)
        speed = self._bytes_per_s / n_bytes
        return Prediction(plan.n_weights, plan.file_bytes, n_bytes, speed)


def bytes_per_token(plan: ConvertPlan) -> int:
    """Of the weights that one decoded token reads."""
    experts = [(layer.n_experts_used, layer.n_experts) for layer in plan.spec.layers]
    return sum(read_bytes(item, experts, plan.spec.tied_head) for item in plan.tensors)


def read_bytes(
    item: PlannedTensor | TensorInfo, experts: Sequence[tuple[int, int]], tied_head: bool
) -> int:
    """Of one tensor. experts: of every layer, how many are used of how many."""
    looked_up = {"position_embd"} | (set() if tied_head else {"token_embd"})
    if item.role in looked_up:
        return item.n_bytes // item.shape[0]
    if item.role.endswith("_exps"):
        n_used, n_experts = experts[int(item.name.split(".")[1])]
        return item.n_bytes * n_used // n_experts
    return item.n_bytes
