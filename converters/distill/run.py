"""A whole run: opens what the recipe names, goes on where it stopped, writes the result."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm._native import default_n_threads
from edgellm.errors import FormatError, UnsupportedError

from ..calibrate.convert import edge_blobs, text_reader
from ..checkpoint import Checkpoint
from ..extras import checkpoint_digest, text_blobs
from ..plan import Job, Options
from ..quality import need_torch
from ..report import Divergence
from ..sources import open_checkpoint
from .data import Packed, TextReader, pack
from .recipe import LEARN_VERSION, TrainRecipe

if TYPE_CHECKING:
    from .curves import Curve
    from .optimizer import Optimizer
    from .own_text import OwnWindows
    from .state import State, StateDir
    from .student import Student, Teacher, WholeStudent
    from .trainer import Trainer


@dataclass(frozen=True)
class TrainProgress:
    """Passed to the progress callback after every step, and while a cache is made."""

    stage: str  # "cache" or "train"
    n_done: int
    n_total: int
    loss: float | None = None


@dataclass(frozen=True)
class TrainReport:
    """steps: done by this call; n_tokens: learnt from in the whole run. before, after: on the valid
    text, None without any."""

    out: Path
    name: str
    steps: int
    n_tokens: int
    loss: float
    before: Divergence | None
    after: Divergence | None
    seconds: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


ProgressFn = Callable[[TrainProgress], None]


def train(recipe: TrainRecipe, *, progress: ProgressFn | None = None) -> TrainReport:
    """Learns, writes `recipe.out` (whole, or not at all) and says what was done. What has been done
    stays in recipe.work_dir: called again, it goes on there, to the same bits for the same threads.

    UnsupportedError without torch, or for what cannot be trained. FormatError for inputs. An
    exception of `progress` cancels; the run can go on later.
    """
    need_torch("training")
    from .trainer import same_bits

    n_threads = recipe.batch.threads or default_n_threads()
    with ExitStack() as stack, same_bits(n_threads):
        return _Run(recipe, n_threads, stack, progress).run()


class _Run:
    def __init__(
        self, recipe: TrainRecipe, n_threads: int, stack: ExitStack, progress: ProgressFn | None
    ) -> None:
        self._recipe, self._n_threads, self._progress = recipe, n_threads, progress
        self._stack = stack
        self._start = time.monotonic()
        self._warnings: list[str] = []
        _check_out(recipe.out, may_exist=recipe.learn != "weights")
        self._student, blobs, self._student_digest = self._open_student()
        self._teacher, self._teacher_digest = self._open_teacher(blobs)
        self._begin()
        end_ids = self._student.spec.eos_ids
        tokenizer, template = text_reader(recipe.student, blobs)
        if tokenizer.n_vocab > self._student.spec.n_vocab:
            raise FormatError(
                f"{recipe.student}: its tokenizer has {tokenizer.n_vocab} tokens, the model "
                f"{self._student.spec.n_vocab}",
                code="tokenizer_invalid",
            )
        self._reader = TextReader(tokenizer, template, end_ids[0] if end_ids else -1)
        data = recipe.data
        self._data = pack(
            data.files, self._reader, data.window_tokens, data.max_tokens, recipe.batch.seed
        )
        self._valid = self._valid_windows()

    def run(self) -> TrainReport:
        from .curves import Curve
        from .state import StateDir

        recipe = self._recipe
        states = StateDir(recipe.work_dir, self._key())
        self._own = self._own_windows()
        trainer = self._trainer()
        state = states.newest()
        before = self._before(trainer, recipe.work_dir)
        if state is not None:
            _restore(self._student, trainer.optimizer, state)
        first = 0 if state is None else state.step
        curve = Curve(recipe.work_dir, first)
        loss = self._steps(trainer, states, curve, first)
        after = trainer.measure(self._valid) if self._valid is not None else None
        self._write(before, after, loss)
        n_tokens = recipe.schedule.steps * trainer.tokens_per_step
        return TrainReport(
            recipe.out,
            recipe.name,
            recipe.schedule.steps - first,
            n_tokens,
            loss,
            before,
            after,
            time.monotonic() - self._start,
            tuple(self._warnings),
        )

    def _steps(self, trainer: Trainer, states: StateDir, curve: Curve, first: int) -> float:
        """-> the loss of the last step."""
        from .curves import read_curve

        batch, n_steps = self._recipe.batch, self._recipe.schedule.steps
        for step in range(first, n_steps):
            n_tokens = (step + 1) * trainer.tokens_per_step
            own = None if self._own is None else self._own.of_step(step, self._write_for_sampling)
            line = {**trainer.step(step, own), "n_tokens": n_tokens}
            curve.add(line)
            done = step + 1
            is_due = batch.valid_every and (done % batch.valid_every == 0 or done == n_steps)
            if is_due and self._valid is not None:
                curve.add({"step": done, "valid": asdict(trainer.measure(self._valid))})
            if done % batch.save_every == 0 or done == n_steps:
                curve.sync()
                states.save(_state(self._student, trainer.optimizer, done, n_tokens))
                if self._own is not None:
                    self._own.forget(states.oldest_step())
            if self._progress is not None:
                self._progress(TrainProgress("train", done, n_steps, line["loss"]))
        losses = [line["loss"] for line in read_curve(self._recipe.work_dir) if "loss" in line]
        return float(losses[-1]) if losses else float("nan")

    def _trainer(self) -> Trainer:
        from .logit_cache import LogitCache
        from .trainer import Trainer

        recipe = self._recipe
        if recipe.cache is None:
            return Trainer(self._student, self._data, recipe, self._teacher)
        cache = LogitCache(
            recipe.cache.folder,
            self._data,
            self._teacher_digest,
            recipe.cache.samples,
            recipe.batch.seed,
        )
        trainer = Trainer(self._student, self._data, recipe, self._teacher, cache)
        cache.fill(trainer.teacher_log_probs, self._cache_progress)
        return trainer

    def _cache_progress(self, n_done: int, n_total: int) -> None:
        if self._progress is not None:
            self._progress(TrainProgress("cache", n_done, n_total))

    def _before(self, trainer: Trainer, work: Path) -> Divergence | None:
        """Measured once, before the first step; kept for a run that goes on."""
        if self._valid is None:
            return None
        path = work / f"before-{self._valid.digest[:16]}.json"
        try:
            return Divergence(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            before = trainer.measure(self._valid)
            path.write_text(json.dumps(asdict(before)), encoding="utf-8")
            return before

    def _open_student(self) -> tuple[Student, dict[str, bytes], str]:
        recipe = self._recipe
        if recipe.learn != "weights":
            from .refined import RefinedStudent

            with_codes = recipe.learn == "codes"
            student = RefinedStudent(recipe.student, recipe.optimizer, with_codes=with_codes)
            return student, edge_blobs(recipe.student), student.header.root
        from .student import WholeStudent

        checkpoint, job = self._open(recipe.student, without_weights=True)
        if checkpoint.kind != "huggingface":
            raise UnsupportedError(
                f"{recipe.student}: a student whose weights learn is a Hugging Face directory, "
                "since that is what is written",
                code="feature_unsupported",
            )
        self._checkpoint, self._job = checkpoint, job
        student_of_job: WholeStudent = WholeStudent(job, recipe.optimizer, recipe.batch.seed)
        return student_of_job, text_blobs(job), checkpoint_digest(checkpoint)

    def _open_teacher(self, blobs: dict[str, bytes]) -> tuple[Teacher | None, str]:
        if self._recipe.teacher is None:
            return None, ""
        from .student import Teacher

        checkpoint, job = self._open(self._recipe.teacher, without_weights=False)
        its = text_blobs(job).get("tokenizer")
        if its is not None and its != blobs.get("tokenizer"):
            raise UnsupportedError(
                f"{self._recipe.teacher}: has another tokenizer than the student; divergences need "
                "the same tokens",
                code="tokenizer_invalid",
            )
        return Teacher(job), checkpoint_digest(checkpoint)

    def _begin(self) -> None:
        if self._recipe.learn == "codes" and self._teacher is not None:
            from .refined import RefinedStudent

            assert isinstance(self._student, RefinedStudent)
            self._student.begin_near(self._teacher.weights, self._recipe.firmness)

    def _open(self, path: Path, *, without_weights: bool) -> tuple[Checkpoint, Job]:
        checkpoint = self._stack.enter_context(
            open_checkpoint(path, without_weights=without_weights)
        )
        job = Job(checkpoint, Options("F16", None, None, None))
        self._warnings += [note for note in job.warnings if "planned from config" not in note]
        return checkpoint, job

    def _valid_windows(self) -> Packed | None:
        data = self._recipe.data
        if not data.valid:
            return None
        n_tokens = data.valid_windows * data.window_tokens
        return pack(data.valid, self._reader, data.window_tokens, n_tokens, 0)

    def _key(self) -> str:
        import torch

        parts = [str(LEARN_VERSION), self._recipe.digest]
        parts += [self._student_digest, self._teacher_digest]
        parts += [self._data.digest, str(torch.__version__), str(self._n_threads)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _own_windows(self) -> OwnWindows | None:
        from .own_text import OwnWindows

        recipe = self._recipe
        if recipe.own is None:
            return None
        n_windows = recipe.batch.windows * recipe.batch.accumulate
        return OwnWindows(recipe.work_dir, self._data, recipe.own, n_windows, recipe.batch.seed)

    def _write_for_sampling(self, folder: Path) -> Path:
        from ..pipeline import convert
        from .refined import RefinedStudent, write_refined
        from .save import save_checkpoint
        from .student import WholeStudent

        path = folder / "student.edge"
        if isinstance(self._student, RefinedStudent):
            write_refined(self._student, path, {}, None, self._n_threads)
            return path
        assert isinstance(self._student, WholeStudent)
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "student"
            save_checkpoint(self._checkpoint, self._job, self._student.weights, directory)
            convert(directory, path, format="F16", n_threads=self._n_threads)
        return path

    def _write(self, before: Divergence | None, after: Divergence | None, loss: float) -> None:
        recipe = self._recipe
        if recipe.learn == "weights":
            from .save import save_checkpoint
            from .student import WholeStudent

            assert isinstance(self._student, WholeStudent)
            save_checkpoint(self._checkpoint, self._job, self._student.weights, recipe.out)
            return
        from .refined import RefinedStudent, write_refined

        assert isinstance(self._student, RefinedStudent)
        how = {"learn": recipe.learn, "recipe": recipe.digest, "steps": recipe.schedule.steps}
        how |= {"teacher": self._teacher_digest, "text": self._data.digest, "loss": loss}
        both = (before, after) if before is not None and after is not None else None
        warning = write_refined(self._student, recipe.out, how, both, self._n_threads)
        if warning:
            self._warnings.append(warning)


def _restore(student: Student, optimizer: Optimizer, state: State) -> None:
    import torch

    learnt = student.learnt()
    with torch.no_grad():
        for name, parameter in learnt.items():
            found = state.parameters.get(name)
            if found is None or found.shape != parameter.value.shape:
                raise FormatError(
                    f"the saved '{name}' is missing or of another shape; remove the run's folder",
                    code="tensor_missing",
                )
            parameter.value.copy_(found)
    optimizer.load(state.optimizer)


def _state(student: Student, optimizer: Optimizer, step: int, n_tokens: int) -> State:
    from .state import State

    parameters = {name: parameter.value for name, parameter in student.learnt().items()}
    return State(step, n_tokens, parameters, optimizer.state())


def _check_out(out: Path, *, may_exist: bool) -> None:
    if out.exists() and not may_exist:
        raise FormatError(
            f"{out}: exists; training replaces no directory: remove it or choose another `out`",
            code="file_write_failed",
        )
    if not out.parent.is_dir():
        raise FormatError(f"{out.parent}: no such directory", code="file_write_failed")
