"""A whole compression: finds what was done, does the rest, writes the file and the reports."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm._native import default_n_threads
from edgellm.errors import FormatError

from ..export.whole import check_target, whole_files
from ..extras import checkpoint_digest
from ..quality import need_torch
from ..sources import open_checkpoint
from .measure import Judge
from .recipe import ChosenStep, CompressRecipe
from .report import CompressReport, StepReport, write_reports
from .step import CHECKPOINT, EDGE, StepInput, StepResult
from .store import Record, Spent, StepStore, digest_of, write_record


@dataclass(frozen=True)
class CompressProgress:
    """Passed to the progress callback. step: which of them, "step 2 of 4, heal"; what, n_done and
    n_total: of its own work."""

    step: str
    what: str
    n_done: int
    n_total: int


ProgressFn = Callable[[CompressProgress], None]


def compress(recipe: CompressRecipe, *, progress: ProgressFn | None = None) -> CompressReport:
    """Writes `recipe.out` and its reports (each whole, or not at all). What has been done stays in
    recipe.work_dir: called again, it goes on there, to the same bytes for the same threads; steps
    whose settings and inputs are the same as in another recipe with this folder are taken as they
    are.

    UnsupportedError without torch, or for what a step cannot do. FormatError for inputs, and where
    `out` is there and not what the recipe gives. DeviceError while another process works in the
    folder. An exception of `progress` cancels; the run can go on later.
    """
    need_torch("compressing")
    store = StepStore(recipe.work_dir)
    with store.locked():
        return _Run(recipe, store, progress).run()


@dataclass(frozen=True)
class _Model:
    """Where the steps are. checkpoint: the last model that was no .edge file."""

    path: Path
    kind: str
    digest: str
    checkpoint: Path
    checkpoint_digest: str


class _Run:
    def __init__(
        self, recipe: CompressRecipe, store: StepStore, progress: ProgressFn | None
    ) -> None:
        self._recipe, self._store, self._progress = recipe, store, progress
        self._n_threads = recipe.threads or default_n_threads()
        with open_checkpoint(recipe.source) as source:
            digest = checkpoint_digest(source)
            self._source_bytes = sum(path.stat().st_size for path in source.weight_paths)
        self._source = _Model(recipe.source, CHECKPOINT, digest, recipe.source, digest)
        self._judge = Judge(store, recipe.source, digest, recipe.texts, self._n_threads)
        self._texts = {
            name: [digest_of(path) for path in paths]
            for name, paths in vars(recipe.texts.files).items()
        }
        self._reports: list[StepReport] = []
        self._warnings: list[str] = []
        self._n_measured = 0

    def run(self) -> CompressReport:
        model = self._source
        self._add("source", model, self._source_bytes, Record("", "", "", 0.0, 0, {}, []), True)
        for number, chosen in enumerate(self._recipe.steps, start=1):
            model = self._after(number, chosen, model)
        self._deliver(model)
        report = CompressReport(
            self._recipe.name,
            self._recipe.out,
            tuple(self._reports),
            self._n_measured,
            tuple(dict.fromkeys(self._warnings)),
        )
        write_reports(report)
        return report

    def _after(self, number: int, chosen: ChosenStep, model: _Model) -> _Model:
        key = self._key(chosen, model)
        found = self._store.find(chosen.name, key)
        was_done = found is not None
        if found is None:
            check_target(self._recipe.out, 0)
            self._do(number, chosen, model, key)
            found = self._store.find(chosen.name, key)
            assert found is not None
        record, path = found
        made = _Model(path, EDGE, record.digest, model.checkpoint, model.checkpoint_digest)
        if chosen.step.gives == CHECKPOINT:
            made = _Model(path, CHECKPOINT, record.digest, path, record.digest)
        self._add(chosen.name, made, _weight_bytes(path), record, was_done)
        return made

    def _do(self, number: int, chosen: ChosenStep, model: _Model, key: str) -> None:
        store, recipe = self._store, self._recipe
        work = store.work(chosen.name, key)
        spent = Spent(work)
        step = f"step {number} of {len(recipe.steps)}, {chosen.name}"

        def show(what: str, n_done: int, n_total: int) -> None:
            spent.note()
            if self._progress is not None:
                self._progress(CompressProgress(step, what, n_done, n_total))

        show("begins", 0, 1)
        with store.new(chosen.name, key) as folder:
            out = folder / ("model.edge" if chosen.step.gives == EDGE else "model")
            given = StepInput(
                source=recipe.source,
                model=model.path,
                checkpoint=model.checkpoint,
                out=out,
                work=work,
                texts=recipe.texts.files,
                n_threads=self._n_threads,
                progress=show,
            )
            result: StepResult = chosen.step.run(chosen.options, given)
            write_record(
                folder,
                Record(
                    key,
                    out.name,
                    digest_of(out),
                    spent.seconds,
                    result.tokens,
                    dict(result.figures),
                    list(result.warnings),
                ),
            )

    def _key(self, chosen: ChosenStep, model: _Model) -> str:
        """Of all that decides what a step writes."""
        parts = {
            "step": chosen.name,
            "version": chosen.step.version,
            "settings": chosen.digest(digest_of),
            "inputs": [self._source.digest, model.digest, model.checkpoint_digest],
            "texts": {name: self._texts[name] for name in chosen.step.reads},
            "torch": importlib.metadata.version("torch"),
            "threads": self._n_threads,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _add(self, name: str, model: _Model, n_bytes: int, record: Record, was_done: bool) -> None:
        found = self._judge.measure(model.path, model.kind, model.digest)
        figures: dict[str, Any] = found or {"kl": None, "top1": None, "loss_after": None}
        self._n_measured = figures.get("n_tokens", 0)
        self._warnings += record.warnings
        self._reports.append(
            StepReport(
                name,
                n_bytes,
                figures["kl"],
                figures["top1"],
                figures["loss_after"],
                record.tokens,
                record.seconds,
                was_done,
                record.key,
                record.figures,
            )
        )

    def _deliver(self, model: _Model) -> None:
        out = self._recipe.out
        if out.exists():
            if digest_of(out) != model.digest:
                raise FormatError(
                    f"{out}: exists and is not what the recipe gives; remove it or choose another "
                    "`out`",
                    code="file_write_failed",
                )
            return
        check_target(out, model.path.stat().st_size)
        with whole_files(out) as folder:
            shutil.copyfile(model.path, folder / out.name)


def _weight_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(one.stat().st_size for one in files)
