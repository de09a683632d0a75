"""The whole of it: own text, hidden states, training, quantizing, measuring, the file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgellm._native import default_n_threads
from edgellm.edgefile import EdgeHeader, read_tensor, verify
from edgellm.errors import FormatError, UnsupportedError

from ..calibrate.convert import text_reader
from ..distill.data import TextReader, Tokens, pack
from ..quality import need_torch
from ..spec import ModelSpec
from .options import DraftHeadOptions
from .report import DepthFigures, DraftHeadReport
from .shape import fitted, head_bytes, layer_bytes, step_bytes

if TYPE_CHECKING:
    from .samples import ProgressFn, Samples, Windows
    from .train import HeadTrainer, Ids

SEED_STEP = 1_000_003  # between runs, more than windows of one
VERSION = 2  # raised when the same options would give other bytes
_TEXT_BLOBS = ("tokenizer", "chat_template", "special_tokens")


def add_draft_head(
    edge: Path,
    out: Path,
    options: DraftHeadOptions,
    *,
    texts: Sequence[Path],
    work: Path,
    n_threads: int = 0,
    progress: ProgressFn | None = None,
) -> DraftHeadReport:
    """Trains a head for the model of `edge` and writes the model with it to `out`, which may be
    `edge` itself (whole, or not at all). texts: .jsonl, .jsonl.xz or text, by which the model's own
    text begins; without any it begins with the start token. What has been done stays in `work`:
    called again, it goes on there, to the same bytes for the same n_threads.

    UnsupportedError without torch, or for a model without a head. FormatError for inputs. An
    exception of `progress` cancels; the run can go on later.
    """
    need_torch("training a draft head")
    from ..distill.trainer import same_bits

    n_threads = n_threads or default_n_threads()
    with same_bits(n_threads):
        return _Run(Path(edge), Path(out), options, texts, Path(work), n_threads, progress).run()


class _Run:
    def __init__(
        self,
        edge: Path,
        out: Path,
        options: DraftHeadOptions,
        texts: Sequence[Path],
        work: Path,
        n_threads: int,
        progress: ProgressFn | None,
    ) -> None:
        self._start = time.monotonic()
        self._header = verify(edge)
        self._target_spec = _checked_spec(self._header)
        self._options, self._out, self._work = options, out, work
        self._n_threads, self._progress = n_threads, progress
        tensors = self._header.tensors.values()
        self._bytes_of = {info.name: info.n_bytes for info in tensors if info.format != "U8"}
        self._spec = fitted(self._target_spec, self._bytes_of, options)
        self._learnt, self._valid = self._texts(texts)

    def run(self) -> DraftHeadReport:
        from .file import add_blob, checked_head, write_head
        from .train import HeadTrainer, target_of

        options = self._options
        windows, held_out = self._windows()
        ids = most_frequent(windows.tokens, self._spec.n_vocab, self._target_spec.n_vocab)
        target = target_of(self._header, self._target_spec)
        trainer = HeadTrainer(target, self._spec, ids, options)
        loss = self._steps(trainer, windows)
        blob = self._work / "head.edge"
        write_head(blob, self._spec, trainer.weights, ids, options.format, self._n_threads)
        stored = checked_head(verify(blob), self._target_spec)
        figures: dict[str, Any] = {}
        for kind, one in held_out.items():
            figures[f"float_{kind}"] = trainer.measure(one)
            figures[kind] = trainer.measure(one, stored.weights, stored.acts)
        figures["vocab_share"] = float(np.isin(held_out["own"].tokens, ids).mean())
        report = self._report(loss, figures)
        add_blob(self._header, self._out, blob, report.stored())
        return report

    def _windows(self) -> tuple[Windows, dict[str, Windows]]:
        """What it learns from, and what it is measured on by kind: "own", and "text" if any."""
        from .samples import Windows

        options, n_valid = self._options, self._options.valid_windows
        seed = options.seed * SEED_STEP
        learnt = self._samples("learn", self._learnt, seed)
        valid = self._samples("valid", self._valid, seed + options.samples)
        parts = [learnt.own(options.samples)]
        held_out = {"own": valid.own(n_valid)}
        if n_text := min(options.text_windows, len(self._learnt)):
            parts.append(learnt.of_texts(n_text))
        if len(self._valid):
            held_out["text"] = valid.of_texts(len(self._valid))
        return Windows.joined(parts), held_out

    def _samples(self, name: str, texts: Tokens, first_seed: int) -> Samples:
        from .samples import Samples

        key = [self._header.root, _digest(texts), first_seed, self._options.window_tokens]
        key.append(self._options.prompt_tokens)
        folder = self._work / f"{name}-{_sha256(key)[:16]}"
        return Samples(
            self._header.path,
            folder,
            texts,
            self._options,
            first_seed,
            self._n_threads,
            self._progress,
        )

    def _steps(self, trainer: HeadTrainer, windows: Windows) -> float:
        """-> the loss of the last step."""
        from ..distill.curves import Curve, read_curve
        from ..distill.state import StateDir

        options = self._options
        states = StateDir(self._work, self._key(windows))
        state = states.newest()
        if state is not None:
            trainer.load(state)
        first = 0 if state is None else state.step
        curve = Curve(self._work, first)
        for step in range(first, options.steps):
            line = trainer.step(step, windows)
            curve.add(line)
            done = step + 1
            if done % options.save_every == 0 or done == options.steps:
                curve.sync()
                states.save(trainer.state(done))
            if self._progress is not None:
                self._progress(f"step, loss {line['loss']:.4f}", done, options.steps)
        return float(read_curve(self._work)[-1]["loss"])

    def _key(self, windows: Windows) -> str:
        import torch

        values = asdict(self._options)
        del values["save_every"]
        parts = [VERSION, values, self._header.root, _digest(windows.tokens)]
        return _sha256([*parts, str(torch.__version__), self._n_threads])

    def _texts(self, paths: Sequence[Path]) -> tuple[Tokens, Tokens]:
        """Windows to learn from and to measure on, both without any where there are no texts."""
        options = self._options
        if not paths:
            none = np.empty((0, options.window_tokens), dtype=np.int32)
            return none, none
        blobs = {
            name: bytes(read_tensor(self._header, name))
            for name in _TEXT_BLOBS
            if name in self._header.tensors
        }
        tokenizer, template = text_reader(self._header.path, blobs)
        end_ids = self._target_spec.eos_ids
        reader = TextReader(tokenizer, template, end_ids[0] if end_ids else -1)
        n_windows = max(options.text_windows, options.samples) + options.valid_windows
        n_tokens = n_windows * options.window_tokens
        tokens = pack(paths, reader, options.window_tokens, n_tokens, options.seed).tokens
        if len(tokens) <= options.valid_windows:
            raise FormatError(
                f"{', '.join(map(str, paths))}: {len(tokens)} windows of {options.window_tokens} "
                f"tokens, {options.valid_windows} are to be measured on; add text, or ask for "
                "fewer valid_windows",
                code="file_too_small",
            )
        return tokens[: -options.valid_windows], tokens[-options.valid_windows :]

    def _report(self, loss: float, figures: dict[str, Any]) -> DraftHeadReport:
        options = self._options
        n_bytes = head_bytes(self._spec, options.format)
        of_text: dict[str, tuple[DepthFigures, ...]] = {"text": (), "float_text": ()}
        return DraftHeadReport(
            out=self._out,
            vocab=self._spec.n_vocab,
            d_ffn=self._spec.layers[0].d_ffn,
            format=options.format,
            n_bytes=n_bytes,
            layers=n_bytes / layer_bytes(self._target_spec, self._bytes_of),
            step_share=n_bytes / step_bytes(self._target_spec, self._bytes_of),
            steps=options.steps,
            n_tokens=options.steps * options.windows * options.window_tokens,
            loss=loss,
            seconds=time.monotonic() - self._start,
            **{**of_text, **figures},
        )


def most_frequent(tokens: Tokens, n: int, n_vocab: int) -> Ids:
    """The n ids of n_vocab that stand most often in `tokens`, ascending; of equals the lower."""
    counts = np.bincount(tokens.reshape(-1), minlength=n_vocab)
    chosen = np.argsort(-counts, kind="stable")[:n]
    return np.sort(chosen).astype(np.int32)


def _checked_spec(header: EdgeHeader) -> ModelSpec:
    if header.spec.get("kind") == "adapter":
        message = f"{header.path}: an adapter, not a model; give the model's file"
        raise UnsupportedError(message, code="spec_unsupported")
    spec = ModelSpec.from_json(header.metadata["edgellm.spec"])
    if spec.headless:
        message = f"{header.path}: has no head, so nothing can be drafted for it"
        raise UnsupportedError(message, code="feature_unsupported")
    spec.check_attention_only("draft heads are trained")
    return spec


def _digest(tokens: Tokens) -> str:
    shape = "x".join(map(str, tokens.shape)).encode()
    return hashlib.sha256(shape + tokens.astype("<i4").tobytes()).hexdigest()


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
