"""Scores -> what stays. Numbers only; ties go to what stands first.

Ranks are by one measure each, over all layers together, so that layers that matter more stay wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgellm.errors import InvalidArgumentError, UnsupportedError

from ..spec import LayerSpec, ModelSpec
from .cut import LayerCut, whole_layer
from .options import PruneOptions

if TYPE_CHECKING:
    from .scores import F64Array, LayerScores, Scorer

TILE = 64  # FFN channels that go together: whole tiles of every weight format
Step = tuple[int, float]  # a layer that went, and its score


def choose_layers(scorer: Scorer, n_layers: int, options: PruneOptions) -> tuple[Step, ...]:
    """The layers to remove, in the order in which they go."""
    if options.layers >= n_layers:
        raise _too_many("layers", options.layers, n_layers - 1, "layers, of which one must stay")
    kept, gone = list(range(n_layers)), []
    for _ in range(options.layers):
        if options.layers_by == "influence":
            scores = [one.influence for one in scorer.walk(kept)]
        else:
            scores = _divergences(scorer, kept)
        place = int(np.argmin(scores))
        gone.append((kept.pop(place), float(scores[place])))
    return tuple(gone)


def choose_parts(
    spec: ModelSpec, kept: Sequence[int], scores: Sequence[LayerScores], options: PruneOptions
) -> tuple[LayerCut, ...]:
    """Of the layers `kept`, with their scores: heads and channels that stay."""
    layers = [spec.layers[index] for index in kept]
    if options.attention or options.heads:
        _check_heads(kept, layers)
    single = _single_heads(scores, options)
    groups = _groups(layers, scores, options, single)
    channels = _channels(layers, scores, options)
    cuts = []
    for place, (index, layer) in enumerate(zip(kept, layers, strict=True)):
        if place in single:
            cut = _one_head(index, layer, _worth(scores[place], options))
        else:
            cut = _of_groups(index, layer, groups[place])
        own = channels[place]
        cuts.append(LayerCut(index, cut.heads, cut.kv_heads, own))
    return tuple(cuts)


def _divergences(scorer: Scorer, kept: Sequence[int]) -> list[float]:
    """By place in `kept`, of the model without that layer."""
    before = None
    found = []
    for place, index in enumerate(kept):
        found.append(scorer.divergence(scorer.final(kept[place + 1 :], before)).kl)
        before = scorer.final([index], before)
    return found


def _check_heads(kept: Sequence[int], layers: Sequence[LayerSpec]) -> None:
    for index, layer in zip(kept, layers, strict=True):
        if layer.qk_norm == "full":
            raise UnsupportedError(
                f"layer {index} normalises the queries of all its heads together; without one the "
                "others would change: leave attention and heads at 0",
                code="feature_unsupported",
            )


def _worth(scores: LayerScores, options: PruneOptions) -> F64Array:
    """[n_heads], of those that stay the highest."""
    return scores.heads if options.heads_by == "output" else 1 - scores.sinks


def _single_heads(scores: Sequence[LayerScores], options: PruneOptions) -> set[int]:
    """Places of the layers whose attention does least: it looks at the first token and hardly
    changes its input."""
    n_layers = len(scores)
    if options.attention > n_layers:
        raise _too_many("attention", options.attention, n_layers, "layers")
    least = [one.attention_cosine + float(one.sinks.mean()) for one in scores]
    order = np.argsort(-np.array(least), kind="stable")
    return {int(place) for place in order[: options.attention]}


def _one_head(index: int, layer: LayerSpec, worth: F64Array) -> LayerCut:
    best = int(np.argmax(worth))
    return LayerCut(index, (best,), (best // (layer.n_heads // layer.n_kv_heads),))


def _of_groups(index: int, layer: LayerSpec, groups: Sequence[int]) -> LayerCut:
    n = layer.n_heads // layer.n_kv_heads
    heads = tuple(group * n + place for group in groups for place in range(n))
    return LayerCut(index, heads, tuple(groups))


def _groups(
    layers: Sequence[LayerSpec],
    scores: Sequence[LayerScores],
    options: PruneOptions,
    single: set[int],
) -> list[list[int]]:
    """By place, the key heads that stay; of the layers `single` nothing is taken here."""
    worth = [
        _worth(one, options).reshape(layer.n_kv_heads, -1).mean(1)
        for layer, one in zip(layers, scores, strict=True)
    ]
    places = [place for place in range(len(layers)) if place not in single]
    if options.uniform:
        gone = _each_as_many(options.heads, worth)
    else:
        most = sum(layers[place].n_kv_heads - 1 for place in places)
        if options.heads > most:
            raise _too_many("heads", options.heads, most, "key heads, one of each layer staying")
        gone = _least(worth, places, options.heads)
    return [
        [group for group in range(layer.n_kv_heads) if group not in gone[place]]
        for place, layer in enumerate(layers)
    ]


def _least(worth: Sequence[F64Array], places: Sequence[int], n: int) -> list[set[int]]:
    """The n least of all, but the best of each place stays."""
    ranked = sorted(
        (float(worth[place][group]), place, group)
        for place in places
        for group in range(len(worth[place]))
        if group != int(np.argmax(worth[place]))
    )
    gone: list[set[int]] = [set() for _ in worth]
    for _, place, group in ranked[:n]:
        gone[place].add(group)
    return gone


def _each_as_many(n: int, worth: Sequence[F64Array]) -> list[set[int]]:
    n_each, rest = divmod(n, len(worth))
    least = min(len(one) for one in worth)
    if rest or n_each >= least or (n and len({len(one) for one in worth}) > 1):
        raise InvalidArgumentError(
            f"heads is {n}, which {len(worth)} layers with {least} key heads and more cannot give "
            f"up evenly; uniform wants a multiple of {len(worth)}, up to "
            f"{len(worth) * (least - 1)}",
            code="invalid_argument",
        )
    return [set(np.argsort(one, kind="stable")[:n_each].tolist()) for one in worth]


def _channels(
    layers: Sequence[LayerSpec], scores: Sequence[LayerScores], options: PruneOptions
) -> list[tuple[int, ...] | None]:
    """By place, the channels that stay, ascending; None: all."""
    if not options.ffn:
        return [None] * len(layers)
    worth = [one.channels for one in scores]
    dense = [place for place, one in enumerate(worth) if one is not None]
    if not dense:
        raise UnsupportedError(
            "every layer has experts; ffn prunes the channels of plain layers only",
            code="feature_unsupported",
        )
    sorted_worth = {place: np.sort(_there(worth[place]))[::-1] for place in dense}
    widths = _widths(sorted_worth, options)
    result: list[tuple[int, ...] | None] = [None] * len(layers)
    for place in dense:
        best = np.argsort(-_there(worth[place]), kind="stable")[: widths[place]]
        result[place] = tuple(sorted(best.tolist()))
    return result


def _there(values: F64Array | None) -> F64Array:
    assert values is not None
    return values


def _widths(worth: dict[int, F64Array], options: PruneOptions) -> dict[int, int]:
    """Channels that stay, by place. worth: of each, descending."""
    if options.uniform:
        if len({len(one) for one in worth.values()}) > 1:
            raise InvalidArgumentError(
                "uniform: the layers differ in width already", code="invalid_argument"
            )
        n = len(next(iter(worth.values())))
        kept = -(-(n - _whole(options.ffn * n)) // TILE) * TILE
        return dict.fromkeys(worth, min(n, kept))
    widths = {place: len(one) for place, one in worth.items()}
    left = _whole(options.ffn * sum(widths.values()))
    while True:
        ends = {place: (width - 1) // TILE * TILE for place, width in widths.items()}
        costs = [
            (float(worth[place][end : widths[place]].mean()), place)
            for place, end in ends.items()
            if end > 0 and widths[place] - end <= left
        ]
        if not costs:
            return widths
        _, place = min(costs)
        left -= widths[place] - ends[place]
        widths[place] = ends[place]


def _whole(share: float) -> int:
    """Channels, where a share of them is a whole number but for its rounding."""
    return int(share + 1e-6)


def _too_many(what: str, n: int, most: int, of: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{what} is {n}; at most {most} can go of the model's {of}", code="invalid_argument"
    )


def keep_all(spec: ModelSpec) -> tuple[LayerCut, ...]:
    """Nothing pruned."""
    return tuple(whole_layer(index, layer) for index, layer in enumerate(spec.layers))
