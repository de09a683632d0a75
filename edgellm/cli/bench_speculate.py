"""`edgellm bench --speculate`: what guessing ahead is worth, by kind of text.

A text is forced: the model computes every step, but what it is taken to write is the text. So the
drafters' own guesses meet a real text, with weights that would never have written it, too. Steps
without and with guesses take turns, on two sessions of the same text, so a slow spell of the
machine hits both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import _native
from ..errors import InvalidArgumentError, UnsupportedError
from .bench_texts import BenchText
from .output import note

_BLOCK_TOKENS = 32  # that one session takes before it is the other's turn
_FEWEST_TOKENS = 16  # of a continuation
HELP: dict[str, str] = {
    "tokens_per_step": "tokens of the text that came of one step",
    "acceptance": "of the guesses that were verified, the part that was right",
    "speed": "time without guesses / time with them, over the same tokens",
}


@dataclass
class Replay:
    """Figures of one text, or of several: sum()."""

    kind: str
    tokens: int = 0
    steps: int = 0
    plain_s: float = 0.0
    s: float = 0.0
    drafters: dict[str, list[int]] = field(default_factory=dict)  # [drafted, accepted]

    def add(self, other: Replay) -> None:
        self.tokens += other.tokens
        self.steps += other.steps
        self.plain_s += other.plain_s
        self.s += other.s
        for name, (drafted, accepted) in other.drafters.items():
            own = self.drafters.setdefault(name, [0, 0])
            own[0] += drafted
            own[1] += accepted

    def figures(self) -> dict[str, Any]:
        drafted = sum(drafted for drafted, _ in self.drafters.values())
        accepted = sum(accepted for _, accepted in self.drafters.values())
        return {
            "tokens": self.tokens,
            "tokens_per_step": self.tokens / self.steps,
            "acceptance": accepted / drafted if drafted else 0.0,
            "speed": self.plain_s / self.s,
            "drafters": {
                name: {"drafted": drafted, "accepted": accepted}
                for name, (drafted, accepted) in self.drafters.items()
            },
        }


def measure(model: _native.Model, texts: Sequence[BenchText], n_tokens: int) -> dict[str, Any]:
    """Of a model that was loaded to speculate."""
    replays = []
    for at, text in enumerate(texts):
        note(f"text {at + 1} of {len(texts)}: {text.kind}")
        replays.append(replay(model, text, n_tokens))
    kinds: dict[str, Replay] = {}
    for one in replays:
        kinds.setdefault(one.kind, Replay(one.kind)).add(one)
    return {
        "isa": _native.active_isa(),
        "threads": model.n_threads,
        "kinds": {kind: replay.figures() for kind, replay in kinds.items()},
        "texts": [{"kind": one.kind, **one.figures()} for one in replays],
    }


def table(data: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """For people: a line for each kind."""
    for kind, row in data["kinds"].items():
        parts = [f"{row[key]:.2f} {key.replace('_', ' ')}" for key in HELP]
        who = [f"{name} {n['accepted']}/{n['drafted']}" for name, n in row["drafters"].items()]
        yield kind, ", ".join([*parts, *who])


def plot(data: dict[str, Any], path: Path) -> None:
    """Speed against acceptance, a point for each text, to a picture."""
    figure_type = _figure_type()
    figure = figure_type(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for kind in data["kinds"]:
        rows = [row for row in data["texts"] if row["kind"] == kind]
        axes.scatter(
            [row["acceptance"] for row in rows], [row["speed"] for row in rows], label=kind
        )
    axes.axhline(1.0, color="gray", linewidth=0.8)
    axes.set_xlabel("guesses that were right, of those verified")
    axes.set_ylabel("speed over plain decoding")
    axes.legend()
    figure.savefig(path)


def check_plot(path: Path | None) -> None:
    """Before anything is measured."""
    if path is None:
        return
    _figure_type()
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        message = f"--plot must name a .png, .svg or .pdf file, but is {path}"
        raise InvalidArgumentError(message, code="invalid_argument")


def _figure_type() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        message = "--plot needs matplotlib: pip install 'edgellm[report]'"
        raise UnsupportedError(message, code="feature_unsupported") from None
    return Figure


def replay(model: _native.Model, text: BenchText, n_tokens: int) -> Replay:
    prompt, coming = _ids(model, text, n_tokens)
    plain, guessing = (_session(model, prompt, is_on, len(coming)) for is_on in (False, True))
    result = Replay(text.kind, tokens=len(coming))
    try:
        n_before = guessing.stats["n_steps"]
        for at in range(0, len(coming), _BLOCK_TOKENS):
            block = coming[at : at + _BLOCK_TOKENS]
            result.plain_s += _force(plain, block)
            result.s += _force(guessing, block)
        stats = guessing.stats
        result.steps = stats["n_steps"] - n_before
        result.drafters = {name: list(counts) for name, counts in stats["drafters"].items()}
    finally:
        plain.close()
        guessing.close()
    return result


def _ids(model: _native.Model, text: BenchText, n_tokens: int) -> tuple[list[int], list[int]]:
    """Prompt and continuation; of a prompt that leaves too little room, the end."""
    tokenizer = model.tokenizer
    if tokenizer is None and isinstance(text.prompt, str):
        message = "the model holds no tokenizer, so no text can be given to it"
        raise UnsupportedError(message, code="tokenizer_unsupported")
    prompt, coming = (
        ids if isinstance(ids, list) else tokenizer.encode(ids, bos=False)  # type: ignore[union-attr]
        for ids in (text.prompt, text.continuation)
    )
    coming = coming[: min(n_tokens, model.n_ctx_train // 2)]
    if len(coming) < _FEWEST_TOKENS or not prompt:
        message = (
            f"a {text.kind} text continues for {len(coming)} tokens after {len(prompt)}; give each "
            f"a prompt and {_FEWEST_TOKENS} tokens, and a model with a context for them"
        )
        raise InvalidArgumentError(message, code="invalid_argument")
    return prompt[-(model.n_ctx_train - len(coming)) :], coming


def _session(model: _native.Model, prompt: list[int], is_on: bool, n_more: int) -> _native.Session:
    session = _native.Session(model, len(prompt) + n_more)
    session.set_speculation(is_on)
    session.append(prompt)
    _run(session)
    return session


def _force(session: _native.Session, ids: list[int]) -> float:
    started = perf_counter()
    for token_id in ids:
        session.append([token_id])
        _run(session)
    return perf_counter() - started


def _run(session: _native.Session) -> None:
    while not session.run():
        pass
