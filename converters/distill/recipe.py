"""What a training run is: TOML -> TrainRecipe. Every key is checked, unknown ones are refused.

A table of the file is a dataclass here, its keys are the fields, and what is left out has the
field's default. Paths are relative to the file. Knows no model and no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgellm.errors import InvalidArgumentError

from ..recipe_file import read_toml
from ..tables import read_tables

LEARN_VERSION = 1  # raised when the same recipe would learn other bits
LEARN = ("weights", "scales", "codes")
DIVERGENCES = ("none", "forward_kl", "reverse_kl", "skew_forward", "skew_reverse", "js")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("constant", "linear", "cosine", "wsd")
DTYPES = ("f32", "bf16")
MAX_STEPS = 1 << 31
# Of BatchOptions: no bit depends on how often a run saves and measures; the number of threads that
# "threads" comes down to stands in a run's key itself.
NOT_OF_BITS = ("threads", "save_every", "valid_every")


def check(is_good: bool, message: str) -> None:
    if not is_good:
        raise InvalidArgumentError(message, code="invalid_argument")


def check_one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    check(value in known, f"{what} '{value}' is not known (known: {', '.join(known)})")


@dataclass(frozen=True)
class DataOptions:
    """files: text, .jsonl or .jsonl.xz to learn from. valid: the same, to measure on.
    window_tokens: of a packed sequence; valid_windows: to measure on, at most; max_tokens: to learn
    from, at most (0: all there are)."""

    files: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    window_tokens: int = 512
    valid_windows: int = 16
    max_tokens: int = 0

    def __post_init__(self) -> None:
        check(8 <= self.window_tokens <= 1 << 16, "window_tokens is 8 to 65536")
        check(1 <= self.valid_windows <= 1 << 16, "valid_windows is 1 to 65536")
        check(0 <= self.max_tokens <= 1 << 40, "max_tokens is 0 to 2^40")


@dataclass(frozen=True)
class LossOptions:
    """next_token, teacher, hidden: weights of the three terms. divergence: from the teacher, see
    losses.py; alpha: share of the other model in a skewed divergence, or of the student in js.
    temperature: both models' logits are divided by it."""

    next_token: float = 1.0
    teacher: float = 0.0
    hidden: float = 0.0
    divergence: str = "none"
    alpha: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_one_of("divergence", self.divergence, DIVERGENCES)
        weights = (self.next_token, self.teacher, self.hidden)
        check(all(0 <= w < math.inf for w in weights), "weights of losses are 0 or more")
        check(any(weights), "every loss has weight 0; set next_token, teacher or hidden")
        check((self.teacher > 0) == (self.divergence != "none"), "teacher goes with divergence")
        check(0 < self.alpha < 1, "alpha is between 0 and 1")
        check(0 < self.temperature < math.inf, "temperature is above 0")

    @property
    def needs_teacher(self) -> bool:
        return self.teacher > 0 or self.hidden > 0


@dataclass(frozen=True)
class OptimizerOptions:
    """rate: of weights, or of codes in half gaps between levels; scale_rate: of scales and norms of
    a compressed file, relative to their size. muon takes the matrices of the layers, AdamW what is
    left. clip: of the gradient's norm (0: none)."""

    name: str = "adamw"
    rate: float = 1e-3
    scale_rate: float = 1e-3
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_one_of("optimizer", self.name, OPTIMIZERS)
        check(0 <= self.rate < math.inf and 0 <= self.scale_rate < math.inf, "a rate is >= 0")
        check(0 <= self.weight_decay < math.inf, "weight_decay is 0 or more")
        check(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "beta1 and beta2 are 0 to below 1")
        check(self.epsilon > 0 and 0 <= self.clip < math.inf, "epsilon > 0, clip >= 0")


@dataclass(frozen=True)
class ScheduleOptions:
    """steps: of the optimizer. The rate grows over `warmup` steps, and ends at `final` of itself:
    by a cosine, a line, or (wsd) a line over the last `decay` steps."""

    steps: int
    kind: str = "cosine"
    warmup: int = 0
    decay: int = 0
    final: float = 0.1

    def __post_init__(self) -> None:
        check_one_of("schedule", self.kind, SCHEDULES)
        check(1 <= self.steps <= MAX_STEPS, f"steps is 1 to {MAX_STEPS}")
        check(0 <= self.warmup <= self.steps, "warmup is 0 to steps")
        check(0 <= self.decay <= self.steps - self.warmup, "decay is 0 to steps - warmup")
        check(self.kind == "wsd" or self.decay == 0, "decay is of schedule wsd")
        check(0 <= self.final <= 1, "final is 0 to 1")


@dataclass(frozen=True)
class BatchOptions:
    """windows: of a forward pass; accumulate: passes of a step. dtype: of the products; weights and
    sums stay f32. threads: 0 for all performance cores. save_every, valid_every: in steps."""

    windows: int = 8
    accumulate: int = 1
    dtype: str = "f32"
    threads: int = 0
    seed: int = 0
    save_every: int = 100
    valid_every: int = 0

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, DTYPES)
        check(1 <= self.windows <= 1 << 16, "windows is 1 to 65536")
        check(1 <= self.accumulate <= 1 << 16, "accumulate is 1 to 65536")
        check(0 <= self.threads <= 1024, "threads is 0 to 1024")
        check(0 <= self.seed < 1 << 63, "seed is 0 to 2^63 - 1")
        check(1 <= self.save_every <= MAX_STEPS, f"save_every is 1 to {MAX_STEPS}")
        check(0 <= self.valid_every <= MAX_STEPS, f"valid_every is 0 to {MAX_STEPS}")


@dataclass(frozen=True)
class CacheOptions:
    """The teacher's predictions, kept on disk: samples draws of a token from each (logit_cache)."""

    folder: Path
    samples: int = 48

    def __post_init__(self) -> None:
        check(1 <= self.samples <= 255, "samples is 1 to 255")


@dataclass(frozen=True)
class OwnOptions:
    """share: of a step's windows that the student continues itself, from prompt_tokens of the data;
    written by the student as it is every `every` steps (own_text.py)."""

    share: float
    every: int = 50
    prompt_tokens: int = 32

    def __post_init__(self) -> None:
        check(0 < self.share <= 1, "share is above 0 to 1")
        check(1 <= self.every <= 1 << 20, "every is 1 to 2^20")
        check(1 <= self.prompt_tokens <= 1 << 16, "prompt_tokens is 1 to 65536")


@dataclass(frozen=True)
class TrainRecipe:
    """learn: all "weights" of a checkpoint (one without weights begins at random), or of a .edge
    file the "scales" and norms alone, or with them the "codes". out: a Hugging Face directory for
    weights, a .edge file for the others. work: what a run keeps; default OUT.work. firmness: of
    codes: how far from the teacher's weights (0) to the file's levels (1) latent weights begin."""

    student: Path
    out: Path
    data: DataOptions
    schedule: ScheduleOptions
    name: str = ""
    learn: str = "weights"
    teacher: Path | None = None
    work: Path | None = None
    firmness: float = 0.5
    loss: LossOptions = field(default_factory=LossOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    batch: BatchOptions = field(default_factory=BatchOptions)
    cache: CacheOptions | None = None
    own: OwnOptions | None = None

    def __post_init__(self) -> None:
        check_one_of("learn", self.learn, LEARN)
        check(0 <= self.firmness <= 1, "firmness is 0 to 1")
        check(
            self.teacher is not None or not self.loss.needs_teacher,
            "the loss compares with a teacher; name one: teacher = PATH",
        )
        check(self.teacher is None or self.loss.needs_teacher, "the loss uses no teacher")
        if self.cache is not None:
            check(
                self.loss.divergence == "forward_kl" and not self.loss.hidden,
                "a cache of samples serves forward_kl alone, without hidden states",
            )
            check(self.loss.temperature == 1, "a cache holds samples at temperature 1")
        if self.own is not None:
            check(self.loss.teacher > 0, "only a teacher can judge the student's own text")
            check(self.cache is None, "a cache does not know the student's own text")
        is_file = self.out.suffix == ".edge"
        check(
            is_file == (self.learn != "weights"),
            "weights go to a directory; scales and codes to a .edge file",
        )

    @property
    def work_dir(self) -> Path:
        return self.work or self.out.with_name(self.out.name + ".work")

    @property
    def digest(self) -> str:
        """SHA-256 over all that changes a bit of what is learnt; not over paths, which have digests
        of what they hold, nor over how often a run saves and measures."""
        value = asdict(self)
        for key in ("name", "student", "teacher", "out", "work"):
            del value[key]
        for key in ("files", "valid", "valid_windows"):
            del value["data"][key]
        for key in NOT_OF_BITS:
            del value["batch"][key]
        if value["cache"] is not None:
            del value["cache"]["folder"]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_train_recipe(path: Path) -> TrainRecipe:
    """FormatError, or InvalidArgumentError for values, with the file and the key."""
    return read_tables(read_toml(path), TrainRecipe, path, TABLES, ("data", "schedule"))


TABLES: dict[str, type[Any]] = {
    "data": DataOptions,
    "loss": LossOptions,
    "optimizer": OptimizerOptions,
    "schedule": ScheduleOptions,
    "batch": BatchOptions,
    "cache": CacheOptions,
    "own": OwnOptions,
}
