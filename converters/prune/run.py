"""The door: scores a checkpoint on text, says what pruning it will give, and cuts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import InvalidArgumentError, UnsupportedError

from ..archs import TensorSource
from ..calibrate import CalibrationTokens
from ..calibrate.convert import text_reader
from ..checkpoint import Checkpoint
from ..distill.data import TextReader, Tokens, pack
from ..export.whole import check_target
from ..extras import text_blobs
from ..plan import Job, Options
from ..quality import need_torch
from ..report import Divergence
from ..sources import open_checkpoint
from .choose import Step, choose_layers, choose_parts, keep_all
from .config import pruned_configs
from .cut import Cut
from .mask import masked
from .options import PredictOptions, PruneOptions
from .predict import Predictions, Predictor
from .vocabulary import choose_tokens
from .write import Change, F32Array, Pruned, write_pruned

ProgressFn = Callable[[str, int, int], None]  # what is done, how much of it, of how much
_STEPS = ("read", "score", "predict", "cut")
_MASKED = ("attn_q", "attn_k", "attn_v", "attn_o", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class PruneReport:
    """layers_gone: with the score of each when it went. cut: what stays, by numbers in the source.
    divergence: of the model without the layers that went from the source, on the text that chose
    them; None where none went. coverage: share of the text's tokens that the vocabulary kept.
    n_tokens: of text, that were looked at. out: None where nothing was written."""

    out: Path | None
    layers_gone: tuple[Step, ...]
    cut: Cut
    predicted: Predictions
    divergence: Divergence | None
    coverage: float
    n_tokens: int
    seconds: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": None if self.out is None else str(self.out)}


def prune(
    src: Path,
    out: Path,
    options: PruneOptions,
    *,
    texts: Sequence[Path] | CalibrationTokens = (),
    n_threads: int = 0,
    predict_options: PredictOptions | None = None,
    progress: ProgressFn | None = None,
) -> PruneReport:
    """Writes `out` (whole, or not at all), a Hugging Face directory for convert() and train(). The
    same inputs give the same bytes. texts: to score on, or their tokens.

    UnsupportedError without torch where it is scored, for GGUF files, and for what the family's
    config.json cannot say. InvalidArgumentError: more is to go than there is. FormatError: inputs.
    """
    check_target(Path(out), 0)
    with _opened(Path(src)) as checkpoint:
        run = _Run(checkpoint, options, texts, n_threads, predict_options, progress)
        return run.result(Path(out))


def predict(
    src: Path,
    options: PruneOptions,
    *,
    texts: Sequence[Path] | CalibrationTokens = (),
    n_threads: int = 0,
    predict_options: PredictOptions | None = None,
    progress: ProgressFn | None = None,
) -> PruneReport:
    """What prune() would do, and what that would give; nothing is written."""
    with _opened(Path(src)) as checkpoint:
        return _Run(checkpoint, options, texts, n_threads, predict_options, progress).result(None)


def _opened(src: Path) -> Checkpoint:
    checkpoint = open_checkpoint(src)
    if checkpoint.kind != "huggingface":
        checkpoint.close()
        raise UnsupportedError(
            f"{src}: what is pruned is a Hugging Face directory, since that is what is written",
            code="feature_unsupported",
        )
    return checkpoint


class _Run:
    def __init__(
        self,
        checkpoint: Checkpoint,
        options: PruneOptions,
        texts: Sequence[Path] | CalibrationTokens,
        n_threads: int,
        predict_options: PredictOptions | None,
        progress: ProgressFn | None,
    ) -> None:
        self._start = time.monotonic()
        self._options, self._texts, self._n_threads = options, texts, n_threads
        self._predict_options = predict_options or PredictOptions()
        self._progress = progress
        self._show("read")
        self._job = Job(checkpoint, Options("F16", None, None, None))
        self._job.spec.check_attention_only("layers are pruned")
        self._warnings = list(self._job.warnings)

    def result(self, out: Path | None) -> PruneReport:
        job, options = self._job, self._options
        text = self._text() if options.needs_scores or options.vocab else None
        gone: tuple[Step, ...] = ()
        layers, change, divergence = keep_all(job.spec), None, None
        if options.needs_scores:
            need_torch("scoring what is pruned")
            from .scores import Scorer

            assert text is not None
            self._show("score")
            scorer = Scorer(job, text[: options.n_windows], self._n_threads)
            gone = choose_layers(scorer, len(job.spec.layers), options)
            left = set(range(len(job.spec.layers))) - {index for index, _ in gone}
            kept = sorted(left)
            scores = scorer.walk(kept)
            if options.cuts_layers:
                layers = choose_parts(job.spec, kept, scores, options)
            divergence = scorer.divergence(scorer.final(kept)) if gone else None
            change = self._mask({name: x for one in scores for name, x in one.columns.items()})
        elif options.mask != "none":
            change = self._mask({})
        tokens, coverage = None, 1.0
        if options.vocab:
            assert text is not None
            found = choose_tokens(job, text, options.vocab)
            tokens, coverage = found.tokens, found.coverage
        cut = Cut(layers, tokens)
        config, generation, spec = pruned_configs(job, cut)
        pruned = Pruned(job, cut, config, generation, spec, change)
        self._show("predict")
        predictor = Predictor(self._predict_options)
        whole = job.checkpoint.optional_json("generation_config.json")
        before = predictor.of(dict(job.config), whole)
        predicted = Predictions(before, predictor.of(config, generation), predictor.basis)
        if out is not None:
            self._show("cut")
            write_pruned(pruned, out)
        return PruneReport(
            out,
            gone,
            cut,
            predicted,
            divergence,
            coverage,
            0 if text is None else int(text.size),
            time.monotonic() - self._start,
            tuple(self._warnings),
        )

    def _text(self) -> Tokens:
        """Windows [n, window_tokens]: as many as are counted, those to score on first."""
        options, directory = self._options, self._job.checkpoint.directory
        if isinstance(self._texts, CalibrationTokens):
            return self._known(self._texts.windows)
        if not self._texts:
            raise InvalidArgumentError(
                "what goes is chosen on text: name at least one file of text like what the model "
                "will read",
                code="invalid_argument",
            )
        blobs = text_blobs(self._job)
        tokenizer, template = text_reader(directory, blobs)
        ends = self._job.spec.eos_ids
        reader = TextReader(tokenizer, template, ends[0] if ends else -1)
        n_scored = options.n_windows * options.window_tokens
        n_tokens = max(n_scored, options.vocab_tokens if options.vocab else 0)
        packed = pack(self._texts, reader, options.window_tokens, n_tokens, 0)
        n_found = len(packed.tokens)
        if n_found < options.n_windows and options.needs_scores:
            self._warnings.append(
                f"the text has {n_found} windows of {options.window_tokens} tokens; "
                f"{options.n_windows} were asked for"
            )
        return packed.tokens

    def _known(self, windows: Tokens) -> Tokens:
        n_vocab = self._job.spec.n_vocab
        if int(windows.min()) < 0 or int(windows.max()) >= n_vocab:
            raise InvalidArgumentError(
                f"the tokens go from {windows.min()} to {windows.max()}, the model has {n_vocab}",
                code="invalid_argument",
            )
        return windows

    def _mask(self, columns: dict[str, Any]) -> Change | None:
        options = self._options
        if options.mask == "none":
            return None

        def change(source: TensorSource, values: F32Array) -> F32Array:
            if source.role not in _MASKED:
                return values
            inputs = columns[source.name] if options.mask == "wanda" else None
            return masked(np.ascontiguousarray(values), options.mask_share, inputs)

        return change

    def _show(self, step: str) -> None:
        if self._progress is not None:
            self._progress(step, _STEPS.index(step), len(_STEPS))
