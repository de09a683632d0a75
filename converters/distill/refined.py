"""A compressed file that learns in its own formats, and the file of what was learnt.

DWQ (mlx-lm): scales and norms, the codes staying as they are. QAD: the codes as well, from latent
weights that round to the file's codes, so that training begins with the very file. Inputs of every
matrix are rounded as its `act` says. Matrices in formats without scales of ours (F16, L4, K4, L8)
stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgellm.edgefile import EdgeHeader, EdgeWriter, TensorInfo, read_tensor, verify
from edgellm.errors import FormatError, NumericError, UnsupportedError

from ..layout import tensor_slots
from ..quant import quant_format
from ..quant.activations import ROUNDED_ACTS
from ..recipe import EMBED_ROLE, HEAD_ROLE
from ..reference import ALL_ROWS, decoded_weights
from ..report import Divergence
from ..scores import append_scores
from ..spec import ModelSpec
from .fake_quant import QuantizedMatrix, rounded_inputs
from .optimizer import Learnt
from .recipe import OptimizerOptions
from .student import PackedModel

_MADE_ANEW = ("scores", "report", "recipe", "edgellm.hashes")
_BLOB = "U8"


class RoundedModel(PackedModel):
    """A forward pass whose matrices take their inputs as the runtime's kernels do."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: dict[str, Tensor],
        documents: Tensor,
        acts: Mapping[str, str],
    ) -> None:
        super().__init__(spec, weights, documents)
        self._acts = acts

    def linear(self, x: Tensor, name: str, rows: slice = ALL_ROWS) -> Tensor:
        act = self._acts.get(name)
        return super().linear(x if act is None else rounded_inputs(x, act), name, rows)

    def to_logits(self, x: Tensor, matrix: Tensor) -> Tensor:
        act = self._acts.get(EMBED_ROLE if self.spec.tied_head else HEAD_ROLE)
        return super().to_logits(x, matrix) if act is None else self._rounded_logits(x, matrix, act)

    def _rounded_logits(self, x: Tensor, matrix: Tensor, act: str) -> Tensor:
        return self.capped(rounded_inputs(self.final_norm(x), act) @ matrix.T)


class CompressedModel:
    """The model of a .edge file as it is, int8 activations included; keys and values float32."""

    def __init__(self, path: Path) -> None:
        header = verify(path)
        self.spec = _checked_spec(header)
        self._acts = _rounded_acts(header)
        self._weights = decoded_weights(header)

    def model(self, documents: Tensor) -> RoundedModel:
        return RoundedModel(self.spec, self._weights, documents, self._acts)


class RefinedStudent:
    """The model of a .edge file. UnsupportedError for files without a matrix that could learn."""

    def __init__(self, path: Path, options: OptimizerOptions, *, with_codes: bool) -> None:
        self.header = verify(path)
        self.spec = _checked_spec(self.header)
        tensors = [info for info in self.header.tensors.values() if info.format != _BLOB]
        self._acts = _rounded_acts(self.header)
        self._matrices = {
            info.name: _matrix(self.header, info, with_codes)
            for info in tensors
            if info.format != "F32" and quant_format(info.format).pack is not None
        }
        if not self._matrices:
            raise UnsupportedError(
                f"{path}: no matrix is in an E format; convert with --format E4_16 or another",
                code="tensor_format",
            )
        fixed = decoded_weights(self.header)
        self._fixed = {name: w for name, w in fixed.items() if name not in self._matrices}
        self._vectors = {
            info.name: self._fixed.pop(info.name).requires_grad_()
            for info in tensors
            if info.format == "F32" and not info.role.startswith("rope_")
        }
        self._learnt = dict(self._parameters(options))

    def begin_near(self, original: Mapping[str, Tensor], firmness: float) -> None:
        """Latent weights begin at the original's, as QuantizedMatrix says; a matrix that the
        original has in another shape, or not, begins on its levels."""
        for name, matrix in self._matrices.items():
            found = original.get(name)
            if found is not None and list(found.shape) == list(self.header.tensors[name].shape):
                matrix.begin_near(found, firmness)

    def learnt(self) -> Mapping[str, Learnt]:
        return self._learnt

    def model(self, documents: Tensor) -> RoundedModel:
        matrices = {name: matrix.weights() for name, matrix in self._matrices.items()}
        weights = {**self._fixed, **self._vectors, **matrices}
        return RoundedModel(self.spec, weights, documents, self._acts)

    def tensor_bytes(self, name: str) -> bytes | memoryview:
        """What the file holds under a name now."""
        if name in self._matrices:
            values = self._matrices[name].weights()
        elif name in self._vectors:
            values = self._vectors[name]
        else:
            return read_tensor(self.header, name)
        if not bool(values.detach().isfinite().all()):
            message = f"{name}: training diverged; lower `rate` and `scale_rate`"
            raise NumericError(message, code="numeric")
        if name in self._matrices:
            return self._matrices[name].strips().data
        return values.detach().numpy().astype("<f4").tobytes()

    def _parameters(self, options: OptimizerOptions) -> Mapping[str, Learnt]:
        learnt: dict[str, Learnt] = {}
        for name, matrix in self._matrices.items():
            for part, value in (("rows", matrix.row_factor), ("groups", matrix.group_factor)):
                learnt[f"{name}.{part}"] = Learnt(value, options.scale_rate, decays=False)
            if matrix.latent is not None:
                is_inner = name.startswith("layers.")
                learnt[name] = Learnt(matrix.latent, options.rate, decays=False, is_matrix=is_inner)
        for name, value in self._vectors.items():
            learnt[name] = Learnt(value, options.scale_rate, decays=False)
        return learnt


def write_refined(
    student: RefinedStudent,
    out: Path,
    how: Mapping[str, Any],
    before_after: tuple[Divergence, Divergence] | None,
    n_threads: int,
) -> str | None:
    """The student as a file: what did not learn is copied. how: what was done, for its recipe.
    Gives a warning where the runtime cannot score it here."""
    header = student.header
    written = [info for info in header.tensors.values() if info.format != _BLOB]
    blobs = [info for info in header.tensors.values() if info.format == _BLOB]
    with EdgeWriter.like(header, out) as writer:
        for info in written:
            writer.plan(info.name, info.role, format=info.format, shape=info.shape, act=info.act)
        for info in written:
            writer.add(info.name, student.tensor_bytes(info.name))
        for info in blobs:
            if info.name not in _MADE_ANEW:
                writer.append(info.name, info.role, read_tensor(header, info.name))
        recipe = {**_json_blob(header, "recipe"), "refined": dict(how)}
        writer.append("recipe", "recipe", _as_blob(recipe))
        warning = None if student.spec.headless else append_scores(writer, n_threads)
        writer.append("report", "report", _as_blob(_report(header, before_after)))
        source = dict(header.source or {})
        writer.set_source({**source, "refined_from": header.metadata["edgellm.root"]})
    return warning


def _checked_spec(header: EdgeHeader) -> ModelSpec:
    """Of a model whose tensors are there."""
    if header.spec.get("kind") == "adapter":
        message = f"{header.path}: an adapter, not a model; give the model's file"
        raise UnsupportedError(message, code="spec_unsupported")
    spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
    for slot in tensor_slots(spec):
        info = header.tensors.get(slot.name)
        if info is None or info.shape != slot.shape:
            raise FormatError(
                f"{header.path}: tensor '{slot.name}' is missing or not {list(slot.shape)}",
                code="tensor_missing",
            )
    return spec


def _rounded_acts(header: EdgeHeader) -> dict[str, str]:
    """By name, of the matrices whose inputs are rounded."""
    acts = {info.name: info.act for info in header.tensors.values()}
    return {name: act for name, act in acts.items() if act is not None and act in ROUNDED_ACTS}


def _matrix(header: EdgeHeader, info: TensorInfo, with_codes: bool) -> QuantizedMatrix:
    strips = np.frombuffer(read_tensor(header, info.name), dtype=np.uint8)
    return QuantizedMatrix(info.format, strips, *info.shape, with_codes=with_codes)


def _report(
    header: EdgeHeader, before_after: tuple[Divergence, Divergence] | None
) -> dict[str, Any]:
    """The converter's, without the errors of weights, which are no longer those of the file."""
    report = _json_blob(header, "report")
    tensors = report.get("tensors")
    if isinstance(tensors, list):
        stale = ("rel_rms_error", "n_rows_measured")
        report["tensors"] = [
            {k: v for k, v in one.items() if k not in stale}
            for one in tensors
            if isinstance(one, dict)
        ]
    report["quality"] = None
    if before_after is not None:
        before, after = before_after
        note = "refined; activations are rounded as the runtime does"
        report["quality"] = {"divergence": asdict(after), "samples": [], "note": note}
        report["before_refining"] = asdict(before)
    return report


def _json_blob(header: EdgeHeader, name: str) -> dict[str, Any]:
    """A blob of the converter's; {} where it is none."""
    if name not in header.tensors:
        return {}
    try:
        value = json.loads(bytes(read_tensor(header, name)))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _as_blob(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
