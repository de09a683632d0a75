"""What each tensor in each format does to the model: KL(original || only that changed), held out.

Measured for the anchors of every group (passes.py), where necessary with the method's own codes;
for other formats and for the tensors of a group by the errors of their outputs (losses.py). That
divergence grows like such an error, and that tensors add up, is the linearity theorem of HIGGS
(Malinovskii et al. 2024, arXiv:2411.17525). Where two anchors are measured, the power law between
them takes the place of the straight line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.edgefile import tensor_bytes

from ..quant import quant_format
from ..quant.methods import Method
from ..report import PlannedTensor
from .cache import MeasuredCache
from .choose import Option, Unit
from .passes import Group

KL, LOSS, FULL_LOSS = "kl", "loss", "full_loss"  # kinds of entries in the cache


def strips_name(tensor: str, format: str) -> str:
    """Of a matrix quantized for a pass, in the work directory."""
    return f"{tensor}.{format}"


def method_for(method: Method, format: str) -> Method:
    """What chooses the codes of a format: there is nothing to choose in F16."""
    return method if quant_format(format).pack is not None else Method("rtn")


def tensor_size(item: PlannedTensor, format: str) -> int:
    """Bytes of a planned tensor in another format, without padding between tensors."""
    return tensor_bytes(format, *item.rows_cols)


@dataclass(frozen=True)
class Sensitivity:
    """One tensor. kl: by format, what it alone adds, nats per token."""

    item: PlannedTensor
    kl: dict[str, float]

    def unit(self, scale: float, stored_bytes: Callable[[int], int]) -> Unit:
        """scale: of all divergences, from measuring a whole choice."""
        n_cols = self.item.rows_cols[1]
        n_rows = self.item.rows_cols[0]
        return Unit(
            self.item.name,
            tuple(
                Option(format, stored_bytes(tensor_bytes(format, n_rows, n_cols)), scale * kl)
                for format, kl in self.kl.items()
            ),
        )


def sensitivities(
    groups: Sequence[Group],
    items: dict[str, PlannedTensor],
    formats: Sequence[str],
    cache: MeasuredCache,
) -> tuple[Sensitivity, ...]:
    """Of all tensors of the groups, in the order of `items`; everything is in `cache`."""
    found: dict[str, Sensitivity] = {}
    for group in groups:
        losses = {
            name: {f: _full_loss(name, f, group, cache) for f in formats} for name in group.tensors
        }
        sums = {f: math.fsum(losses[name][f] for name in group.tensors) for f in formats}
        anchors = [(sums[f], _value(cache, KL, group.name, f)) for f in group.anchors]
        for name in group.tensors:
            kl = {
                f: _predicted(sums[f], anchors) * losses[name][f] / sums[f] if sums[f] > 0 else 0.0
                for f in formats
            }
            for f in group.anchors if len(group.tensors) == 1 else ():
                kl[f] = _value(cache, KL, group.name, f)
            found[name] = Sensitivity(items[name], kl)
    return tuple(found[name] for name in items if name in found)


def _full_loss(name: str, format: str, group: Group, cache: MeasuredCache) -> float:
    """The loss of the whole matrix: the sample's proportions, at the size of the first anchor's."""
    anchor = group.anchors[0]
    sampled = _value(cache, LOSS, name, anchor)
    if sampled == 0:
        return 0.0
    full = _value(cache, FULL_LOSS, name, anchor)
    return full * _value(cache, LOSS, name, format) / sampled


def _predicted(loss: float, anchors: Sequence[tuple[float, float]]) -> float:
    """kl at a loss: proportional to the nearest anchor's outside, a power law between two."""
    known = sorted((x, y) for x, y in anchors if x > 0 and y > 0)
    if not known:
        return 0.0
    below = [pair for pair in known if pair[0] <= loss]
    above = [pair for pair in known if pair[0] > loss]
    if not below or not above:
        x, y = above[0] if not below else below[-1]
        return y * loss / x
    (x0, y0), (x1, y1) = below[-1], above[0]
    share = math.log(loss / x0) / math.log(x1 / x0)
    return math.exp(math.log(y0) + share * math.log(y1 / y0))


def _value(cache: MeasuredCache, kind: str, name: str, format: str) -> float:
    value = cache.get(kind, name, format)
    assert value is not None, (kind, name, format)
    return value
