"""What is to be pruned: TOML -> PruneRecipe. Every key is checked, unknown ones are refused.

Paths are relative to the file. Knows no model and no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.errors import InvalidArgumentError

from ..recipe_file import read_toml
from ..tables import read_tables

LAYERS_BY = ("influence", "kl")
HEADS_BY = ("sink", "output")
MASKS = ("none", "magnitude", "wanda")
MAX_COUNT = 1 << 24


def _check(is_good: bool, message: str) -> None:
    if not is_good:
        raise InvalidArgumentError(message, code="invalid_argument")


@dataclass(frozen=True)
class PruneOptions:
    """How much goes. The default prunes nothing.

    layers: whole layers; layers_by "influence": the one whose output is most like its input, "kl":
    the one without which the model diverges least; both are looked at again after each.
    attention: sub-layers that keep one query head and its key head only.
    heads: key heads with all their query heads, of the layers together; heads_by "sink": those that
    look at the first token most go first, "output": those that write least.
    ffn: share of all FFN channels, in tiles of 64 (the last tile of a layer may be narrower).
    uniform: the same width in every layer, which other programs can read as well.
    vocab: tokens to keep, those that the text needs first; 0: all.
    mask: sets the share mask_share of the layers' weights to zero and removes nothing: for study.
    n_windows, window_tokens: of the text, to score on; vocab_tokens: of it, to count, at most.
    """

    layers: int = 0
    layers_by: str = "influence"
    attention: int = 0
    heads: int = 0
    heads_by: str = "sink"
    ffn: float = 0.0
    uniform: bool = False
    vocab: int = 0
    mask: str = "none"
    mask_share: float = 0.5
    n_windows: int = 32
    window_tokens: int = 512
    vocab_tokens: int = 1 << 20

    def __post_init__(self) -> None:
        _check_one_of("layers_by", self.layers_by, LAYERS_BY)
        _check_one_of("heads_by", self.heads_by, HEADS_BY)
        _check_one_of("mask", self.mask, MASKS)
        for name in ("layers", "attention", "heads", "vocab"):
            value = getattr(self, name)
            _check(0 <= value <= MAX_COUNT, f"{name} is 0 to {MAX_COUNT}, not {value}")
        _check(0 <= self.ffn < 1, f"ffn is a share of the channels, 0 to below 1, not {self.ffn}")
        _check(0 < self.mask_share < 1, f"mask_share is between 0 and 1, not {self.mask_share}")
        _check(1 <= self.n_windows <= 1 << 16, "n_windows is 1 to 65536")
        _check(8 <= self.window_tokens <= 1 << 16, "window_tokens is 8 to 65536")
        _check(1 <= self.vocab_tokens <= 1 << 32, "vocab_tokens is 1 to 2^32")
        _check(
            not (self.uniform and self.attention),
            "attention cuts some layers alone, which uniform excludes",
        )
        _check(
            self.mask == "none" or not (self.cuts_layers or self.vocab),
            "a mask is for study, by itself; leave the other cuts out",
        )

    @property
    def cuts_layers(self) -> bool:
        return bool(self.layers or self.attention or self.heads or self.ffn)

    @property
    def needs_scores(self) -> bool:
        """Whether the model is run on text."""
        return self.cuts_layers or self.mask == "wanda"


@dataclass(frozen=True)
class PredictOptions:
    """format: of all weights, as in `edgellm convert --format`; none: the converter's default.
    bandwidth_gb_per_s: of reads; 0: measured now, with all performance cores."""

    format: str | None = None
    bandwidth_gb_per_s: float = 0.0

    def __post_init__(self) -> None:
        _check(0 <= self.bandwidth_gb_per_s < math.inf, "bandwidth_gb_per_s is 0 or more")


@dataclass(frozen=True)
class PruneRecipe:
    """source: a Hugging Face directory; out: the one to write, which must not exist yet. texts: to
    score on and to count tokens in: text, .jsonl or .jsonl.xz."""

    source: Path
    out: Path
    name: str = ""
    texts: tuple[Path, ...] = ()
    prune: PruneOptions = field(default_factory=PruneOptions)
    predict: PredictOptions = field(default_factory=PredictOptions)


def read_prune_recipe(path: Path) -> PruneRecipe:
    """FormatError, or InvalidArgumentError for values, with the file and the key."""
    inner = {"prune": PruneOptions, "predict": PredictOptions}
    return read_tables(read_toml(path), PruneRecipe, path, inner, ("prune",))


def _check_one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    _check(value in known, f"{what} '{value}' is not known (known: {', '.join(known)})")
