"""One evaluation from end to end: a model, what it is judged by, and the figures.

Opens references, cuts texts, scores them and saves rows; how a figure is defined stands in
`text.py`, what is printed is the command line's and `report.py`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ..signature import RequireSignature
from .compare import Limits, Verdict, judge
from .flips import Flips, find_flips
from .golden import GoldenResult, ask
from .logit_file import (
    SUFFIX,
    LogitFile,
    check_logit_vocabulary,
    check_same_windows,
    save_logits,
)
from .models import EvaluatedModel, check_same_vocabulary
from .questions import Question
from .scores import RowBlock, TokenScores, join_scores, scores_in_step
from .text import (
    ModelRows,
    RowSource,
    ScoredText,
    TextFigures,
    all_figures,
    text_figures,
)
from .windows import Text, TextWindows, WindowRule, cut_windows

OnProgress = Callable[[str, int, int], None]  # what is being done, how many of how many


@dataclass(frozen=True)
class TextEvaluation:
    """The texts of one run: figures of each, then of all if there are several, and the scores."""

    model_name: str
    model_root: str
    model_bytes: int
    reference_name: str | None
    reference_root: str | None
    n_ctx: int
    first_scored: int
    figures: tuple[TextFigures, ...]
    scored: tuple[ScoredText, ...] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For --json: everything but the scores of single tokens."""
        return {
            "file_bytes": self.model_bytes,
            "reference_root": self.reference_root,
            "n_ctx": self.n_ctx,
            "first_scored": self.first_scored,
            "texts": [one.to_dict() for one in self.figures],
        }

    @property
    def total(self) -> TextFigures:
        """Of all texts together."""
        return self.figures[-1]


@dataclass(frozen=True)
class Evaluation:
    """Everything one run found out about a model, and about the reference next to it.

    reference_questions and flips are there only when the reference is a model that was asked too;
    verdict only when limits were set.
    """

    model_name: str
    model_root: str
    reference_name: str | None
    texts: TextEvaluation | None = None
    questions: GoldenResult | None = None
    reference_questions: GoldenResult | None = None
    flips: Flips | None = None
    verdict: Verdict | None = None
    kv_format: str = "F16"  # of the model; a reference keeps F16

    def to_dict(self) -> dict[str, Any]:
        """For --json: everything but the scores of single tokens."""

        def as_dict(part: Any) -> dict[str, Any] | None:
            return None if part is None else asdict(part)

        return {
            "model": self.model_name,
            "root": self.model_root,
            "kv_format": self.kv_format,
            "reference": self.reference_name,
            "text": None if self.texts is None else self.texts.to_dict(),
            "questions": as_dict(self.questions),
            "reference_questions": as_dict(self.reference_questions),
            "flips": as_dict(self.flips),
            "verdict": as_dict(self.verdict),
        }


class Reference:
    """What a model is compared with: another `.edge` file, with F16 keys and values, or saved
    logits. Close it."""

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        name: str | None = None,
        require_signature: RequireSignature = None,
    ) -> None:
        self.model: EvaluatedModel | None = None
        self.file: LogitFile | None = None
        if Path(path).suffix == SUFFIX:
            self.file = LogitFile(Path(path))
        else:
            self.model = EvaluatedModel(
                path, threads=threads, kv="F16", name=name, require_signature=require_signature
            )

    @property
    def name(self) -> str:
        if self.file is not None:
            return self.file.name
        assert self.model is not None
        return self.model.name

    def check(self, model: EvaluatedModel) -> None:
        """UnsupportedError unless `model` has the same vocabulary."""
        if self.model is not None:
            check_same_vocabulary(model, self.model)
        elif self.file is not None:
            check_logit_vocabulary(model, self.file)

    def close(self) -> None:
        if self.model is not None:
            self.model.close()

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def windows_for(
    model: EvaluatedModel, texts: Sequence[Text], rule: WindowRule | None, file: LogitFile | None
) -> list[TextWindows]:
    """The windows to score: those of saved logits, or `texts` cut by `rule`.

    A rule of None is the one of the saved logits, or the default. Texts given along with saved
    logits must be among them, cut alike (InvalidArgumentError).
    """
    if file is not None and not texts:
        if rule is not None:
            message = (
                f"{file.name} has windows of its own, of {file.info.n_ctx} tokens; "
                "leave --n-ctx and --max-tokens-scored out"
            )
            raise InvalidArgumentError(message, code="invalid_argument")
        return list(file.info.texts)
    if len({text.sha256 for text in texts}) != len(texts):
        message = "one text is given twice, and would count twice"
        raise InvalidArgumentError(message, code="invalid_argument")
    if rule is None and file is not None:
        rule = WindowRule(file.info.n_ctx, file.info.first_scored)
    windows = [cut_windows(model, text, rule or WindowRule()) for text in texts]
    if file is not None:
        check_same_windows(file, windows)
    return windows


def evaluate_texts(
    model: EvaluatedModel,
    windows: Sequence[TextWindows],
    reference: Reference | None = None,
    *,
    save_to: Path | None = None,
    progress: OnProgress | None = None,
) -> TextEvaluation:
    """Score all windows, next to `reference` if there is one.

    save_to: write the rows of `model` there, for later references. Cancel by raising in `progress`,
    which is called after every window: nothing is left behind.
    """
    n_ctx = windows[0].n_ctx
    with ExitStack() as stack:
        rows = stack.enter_context(ModelRows(model, n_ctx))
        against: RowSource | None = None
        if reference is not None:
            reference.check(model)
            against = reference.file
            if reference.model is not None:
                against = stack.enter_context(ModelRows(reference.model, n_ctx))
        scored: list[ScoredText] = []
        blocks = _all_blocks(rows, against, windows, scored, progress)
        if save_to is None:
            for _ in blocks:
                pass
        else:
            save_logits(save_to, model, windows, blocks)
    figures = [text_figures(one) for one in scored]
    if len(scored) > 1:
        figures.append(all_figures(scored))
    return TextEvaluation(
        model_name=model.name,
        model_root=model.root,
        model_bytes=model.native.file_bytes,
        reference_name=None if against is None else against.name,
        reference_root=None if against is None else against.root,
        n_ctx=n_ctx,
        first_scored=windows[0].first_scored,
        figures=tuple(figures),
        scored=tuple(scored),
    )


def evaluate(
    model: EvaluatedModel,
    *,
    windows: Sequence[TextWindows] = (),
    questions: Sequence[Question] = (),
    reference: Reference | None = None,
    limits: Limits | None = None,
    save_to: Path | None = None,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Score `windows`, ask `questions`, and judge by `limits`; each only where it is given.

    Questions are asked to the reference, too, if it is a model. InvalidArgumentError where limits
    and what there is to judge do not go together.
    """
    texts = golden = other_golden = flips = verdict = None
    if windows:
        texts = evaluate_texts(model, windows, reference, save_to=save_to, progress=progress)
    if questions:
        golden = _asked(model, questions, progress)
        if reference is not None and reference.model is not None:
            other_golden = _asked(reference.model, questions, progress)
            flips = find_flips(other_golden.answers, golden.answers)
    if limits is not None:
        verdict = judge(limits, None if texts is None else texts.total, flips)
    return Evaluation(
        model_name=model.name,
        model_root=model.root,
        reference_name=None if reference is None else reference.name,
        texts=texts,
        questions=golden,
        reference_questions=other_golden,
        flips=flips,
        verdict=verdict,
        kv_format=model.native.kv_format,
    )


def _asked(
    model: EvaluatedModel, questions: Sequence[Question], progress: OnProgress | None
) -> GoldenResult:
    def on_answer(n_done: int, n_questions: int) -> None:
        if progress is not None:
            progress(f"{model.name}: questions", n_done, n_questions)

    return ask(model, questions, on_answer=on_answer)


def _all_blocks(
    rows: RowSource,
    against: RowSource | None,
    windows: Sequence[TextWindows],
    scored: list[ScoredText],
    progress: OnProgress | None,
) -> Iterator[RowBlock]:
    """The rows of `rows` as they are scored; what is finished goes to `scored`."""
    n_done, n_windows = 0, sum(text.n_windows for text in windows)
    for text in windows:
        parts: list[TokenScores] = []
        for index in range(text.n_windows):
            reference = None if against is None else against.window(text, index)
            for block, scores in scores_in_step(rows.window(text, index), reference):
                parts.append(scores)
                yield block
            n_done += 1
            if progress is not None:
                progress(text.name, n_done, n_windows)
        scored.append(ScoredText(text, join_scores(parts, text.n_windows)))
