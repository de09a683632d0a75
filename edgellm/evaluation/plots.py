"""The plots of a report, as SVG made by matplotlib, which is imported here and nowhere else.

No text of a model or a file gets into a drawing: labels are ours, texts are numbered.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

HINT = "pip install 'edgellm[report]'"
_MAX_POINTS = 2000  # of a curve; more are not seen and make the file large
_LEAST_KL = 1e-7  # of a front: below it float32 sums are noise
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "edgellm"}


def kl_tail_svg(kl_of_texts: Sequence[Floats]) -> str:
    """Share of tokens (y) whose KL divergence is above x, both logarithmic, one curve a text."""
    import numpy as np

    figure, axes = _figure()
    for number, kl in enumerate(kl_of_texts, start=1):
        values = np.sort(kl.ravel())[::-1]
        shares = np.arange(1, len(values) + 1) / len(values)
        seen = values > 0
        places = _thinned(int(seen.sum()))
        axes.plot(values[seen][places], shares[seen][places], label=f"text {number}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("KL divergence of a token, nats")
    axes.set_ylabel("share of tokens above")
    axes.legend()
    return _svg(figure)


def window_loss_svg(pairs_of_texts: Sequence[tuple[Floats, Floats]]) -> str:
    """A dot per window: the reference's loss (x), and the model's minus the reference's (y)."""
    figure, axes = _figure()
    axes.axhline(0, color="0.7", linewidth=1)
    for number, (ours, theirs) in enumerate(pairs_of_texts, start=1):
        places = _thinned(len(ours))
        axes.plot(
            theirs[places], (ours - theirs)[places], ".", markersize=4, label=f"text {number}"
        )
    axes.set_xlabel("loss of the reference in a window, nats per token")
    axes.set_ylabel("loss of the model minus that")
    axes.legend()
    return _svg(figure)


def front_image(
    points: Sequence[tuple[float, float]], chosen: tuple[float, float], format: str
) -> bytes:
    """Bits per weight (x) against divergence in nats per token (y, logarithmic), with what was
    chosen. format: "png" or "svg"; the same bytes for the same data."""
    figure, axes = _figure()
    shown = [(x, y) for x, y in points if y > _LEAST_KL]
    axes.plot([x for x, _ in shown], [y for _, y in shown], ".-", label="best choices, predicted")
    axes.plot(chosen[0], max(chosen[1], _LEAST_KL), "o", label="chosen")
    axes.set_yscale("log")
    axes.set_xlabel("bits per weight, all tensors")
    axes.set_ylabel("KL(original || file), nats per token")
    axes.legend()
    return _image(figure, format)


def fleet_svg(points: Sequence[tuple[float, float, str]]) -> str:
    """A dot per file: MiB (x) against divergence in nats per token (y, logarithmic), one colour for
    each model, by its number."""
    figure, axes = _figure()
    for name in sorted({name for _, _, name in points}):
        own = sorted((x, max(y, _LEAST_KL)) for x, y, at in points if at == name)
        axes.plot([x for x, _ in own], [y for _, y in own], "o-", label=name)
    axes.set_yscale("log")
    axes.set_xlabel("file, MiB")
    axes.set_ylabel("KL(source || file), nats per token")
    axes.legend()
    return _svg(figure)


def curve_image(lines: Sequence[dict[str, Any]], format: str) -> bytes:
    """Loss of the next token (y) by tokens learnt from, of all text and of each kind. lines: of
    converters/distill/curves.py. format: "png" or "svg"."""
    figure, axes = _figure()
    steps = [line for line in lines if "loss" in line]
    axes.plot(
        [line["n_tokens"] for line in steps],
        [line["terms"]["next_token"] for line in steps],
        color="0.2",
        label="all",
    )
    names = sorted({name for line in steps for name in line["kinds"]})
    for number, name in enumerate(names, start=1):
        seen = [line for line in steps if name in line["kinds"]]
        losses = [line["kinds"][name] for line in seen]
        label = name if name.isidentifier() else f"kind {number}"
        axes.plot([line["n_tokens"] for line in seen], losses, linewidth=1, label=label)
    axes.set_xlabel("tokens learnt from")
    axes.set_ylabel("loss of the next token, nats")
    axes.legend()
    return _image(figure, format)


def _image(figure: Any, format: str) -> bytes:
    if format == "svg":
        return _svg(figure).encode()
    stream = io.BytesIO()
    figure.savefig(stream, format=format, dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _thinned(n_points: int) -> npt.NDArray[np.int64]:
    """Places of at most _MAX_POINTS points, denser at the start, where tails are."""
    import numpy as np

    if n_points <= _MAX_POINTS:
        return np.arange(n_points)
    return np.unique(np.geomspace(1, n_points, _MAX_POINTS).astype(np.int64)) - 1


def _figure() -> tuple[Any, Any]:
    """A figure and its axes, without pyplot: no window system, no global state."""
    try:
        module = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        message = f"plots need {error.name}: {HINT}"
        raise UnsupportedError(message, code="feature_unsupported") from error
    figure = module.Figure(figsize=(7, 4), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    """Only the <svg> element; the same bytes for the same data."""
    matplotlib = importlib.import_module("matplotlib")
    stream = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
