"""Asks a model the questions of a golden set and judges what it says.

Answers are greedy, so the same file gives the same results on every CPU. Chat questions go through
the model's own template, in which nobody's text can become a special token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..chat_template import (
    ChatTemplate,
    PieceEncoder,
    stored_tokens,
    template_source,
    template_tokens,
)
from ..errors import ContextOverflowError
from ..options import GenerateOptions
from ..placeholders import plain_pieces
from .bootstrap import Interval, share_interval
from .continuations import Continuations, front_ids, generated_text, split_continuation
from .models import EvaluatedModel
from .questions import Question, is_right

ALL = "all"
OnAnswer = Callable[[int, int], None]  # questions done, of how many


@dataclass(frozen=True)
class Answer:
    """What a model said to a question.

    answer: its text, or the choice it finds most likely. For choices also: `log_probs` in nats,
    and whether the choice with the highest log probability per UTF-8 byte is right.
    """

    id: str
    question: str
    expected: tuple[str, ...]
    tags: tuple[str, ...]
    answer: str
    correct: bool
    correct_normalized: bool | None = None
    log_probs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers; `normalized` only where there are choices, over those."""

    tag: str
    n_questions: int
    accuracy: Interval
    normalized: Interval | None


@dataclass(frozen=True)
class GoldenResult:
    """The answers to a set in its order; `accuracies` begin with all of them, then by tag."""

    model_name: str
    answers: tuple[Answer, ...]
    accuracies: tuple[Accuracy, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def total(self) -> Accuracy:
        return self.accuracies[0]


def ask(
    model: EvaluatedModel,
    questions: Sequence[Question],
    *,
    on_answer: OnAnswer | None = None,
) -> GoldenResult:
    """Every question in order. ContextOverflowError, beginning with file:line, where one does not
    fit the context: a set is answered whole or not at all. TemplateError for chat questions to a
    model without a template."""
    prompts = _Prompts(model)
    answers: list[Answer] = []
    with Continuations(model) as continuations:
        for n_done, question in enumerate(questions, start=1):
            try:
                answers.append(_answer(model, prompts, continuations, question))
            except ContextOverflowError as error:
                message = f"{question.where}: {error.message}"
                raise ContextOverflowError(message, code=error.code) from None
            if on_answer is not None:
                on_answer(n_done, len(questions))
    return GoldenResult(model.name, tuple(answers), accuracies(answers))


def accuracies(answers: Sequence[Answer]) -> tuple[Accuracy, ...]:
    """Of all answers, then of each tag in alphabetical order."""
    tags = sorted({tag for answer in answers for tag in answer.tags})
    return (
        _accuracy(ALL, answers),
        *(_accuracy(tag, [a for a in answers if tag in a.tags]) for tag in tags),
    )


def _accuracy(tag: str, answers: Sequence[Answer]) -> Accuracy:
    judged = [a.correct_normalized for a in answers if a.correct_normalized is not None]
    return Accuracy(
        tag=tag,
        n_questions=len(answers),
        accuracy=share_interval(sum(answer.correct for answer in answers), len(answers)),
        normalized=share_interval(sum(judged), len(judged)) if judged else None,
    )


def _answer(
    model: EvaluatedModel, prompts: _Prompts, continuations: Continuations, question: Question
) -> Answer:
    if question.rule == "choice":
        return _choice(prompts, continuations, question)
    options = GenerateOptions(max_tokens=question.max_tokens, stop=question.stop)
    text = generated_text(model, prompts.ids(question), options)
    return Answer(
        id=question.id,
        question=question.last_text,
        expected=question.expected,
        tags=question.tags,
        answer=text,
        correct=is_right(question, text),
    )


def _choice(prompts: _Prompts, continuations: Continuations, question: Question) -> Answer:
    log_probs = [
        continuations.score(*prompts.with_choice(question, choice)).log_prob
        for choice in question.choices
    ]
    per_byte = [p / len(c.encode()) for p, c in zip(log_probs, question.choices, strict=True)]
    best = _first_best(log_probs)
    return Answer(
        id=question.id,
        question=question.last_text,
        expected=question.expected,
        tags=question.tags,
        answer=question.choices[best],
        correct=best == question.right_choice,
        correct_normalized=_first_best(per_byte) == question.right_choice,
        log_probs=tuple(log_probs),
    )


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda at: (values[at], -at))


class _Prompts:
    """Ids of prompts; the chat template is compiled when the first chat question comes."""

    def __init__(self, model: EvaluatedModel) -> None:
        self._model = model
        self._chat: tuple[ChatTemplate, PieceEncoder] | None = None

    def ids(self, question: Question) -> list[int]:
        if question.prompt is None:
            return self._chat_ids(question)
        encode = self._model.tokenizer.encode
        return encode(question.prompt, special=False, bos=True) or front_ids(self._model)

    def with_choice(self, question: Question, choice: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt and of a choice after it."""
        if question.prompt is not None:
            return split_continuation(self._model, question.prompt, choice)
        prompt = self._chat_ids(question)
        _, encoder = self._template()
        return prompt, encoder.encode(plain_pieces(choice, encoder.specials), at_start=False)

    def _chat_ids(self, question: Question) -> list[int]:
        template, encoder = self._template()
        pieces = template.pieces(list(question.messages or ()), add_generation_prompt=True)
        return encoder.encode(pieces)

    def _template(self) -> tuple[ChatTemplate, PieceEncoder]:
        if self._chat is None:
            self._chat = chat_template(self._model)
        return self._chat


def chat_template(model: EvaluatedModel) -> tuple[ChatTemplate, PieceEncoder]:
    """The template of a file and the encoder of its pieces; TemplateError if it has none."""
    native, path = model.native, model.path
    source = template_source(None, native.blob("chat_template"), path)
    stored = stored_tokens(native.blob("special_tokens"), path)
    variables = template_tokens(native, model.tokenizer, source, {}, stored)
    encoder = PieceEncoder(model.tokenizer)
    return ChatTemplate(source, variables=variables, specials=encoder.specials), encoder
