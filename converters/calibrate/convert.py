"""The calibrated part of a conversion: text to tokens, tokens to strips in a work directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.edgefile import read_tensor, verify
from edgellm.errors import FormatError, UnsupportedError

from ..extras import SourceDigests
from ..plan import Job
from ..recipe import CalibrationOptions
from ..report import ConvertProgress, ProgressFn
from .tokens import CalibrationTokens, read_tokens
from .work import WorkDir, work_key

if TYPE_CHECKING:
    from edgellm._native import Tokenizer
    from edgellm.chat_template import ChatTemplate

_TEXT_BLOBS = ("tokenizer", "chat_template", "special_tokens")


def calibrated(
    job: Job,
    calibration: CalibrationTokens | Sequence[Path],
    root: Path,
    blobs: dict[str, bytes],
    digests: SourceDigests,
    n_threads: int,
    progress: ProgressFn | None,
    stats_dir: Path | None = None,
) -> WorkDir:
    """A work directory with the strips of every calibrated matrix. Puts the digest of the tokens
    into the recipe blob. stats_dir: see StatsCache. UnsupportedError without torch."""
    try:
        from .run import quantize_calibrated
        from .stats_cache import StatsCache
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UnsupportedError(
            "calibrating needs torch: pip install 'edgellm[compress]'", code="feature_unsupported"
        ) from error
    tokens = (
        calibration
        if isinstance(calibration, CalibrationTokens)
        else text_tokens(job, calibration, blobs, job.recipe.calibration)
    )
    if int(tokens.windows.min()) < 0 or int(tokens.windows.max()) >= job.spec.n_vocab:
        raise FormatError(
            f"calibration tokens go from {tokens.windows.min()} to {tokens.windows.max()}, the "
            f"model has {job.spec.n_vocab}",
            code="tokenizer_invalid",
        )
    recipe_json = job.recipe.to_json(tokens.digest)
    blobs["recipe"] = recipe_json.encode()
    work = WorkDir(root, work_key(digests.result(), recipe_json))
    cache = StatsCache(stats_dir, digests.result(), tokens.digest)

    def show(name: str, n_done: int, n_total: int) -> None:
        if progress is not None:
            progress(ConvertProgress(name, n_done, n_total, stage="calibrate"))

    quantize_calibrated(job, tokens, work, n_threads, show, cache)
    return work


def text_tokens(
    job: Job,
    paths: Sequence[Path],
    blobs: dict[str, bytes],
    options: CalibrationOptions,
    *,
    at_most: bool = False,
) -> CalibrationTokens:
    """By the checkpoint's own tokenizer and template; see read_tokens(). blobs: of
    extras.text_blobs()."""
    tokenizer, template = text_reader(job.checkpoint.directory, blobs)
    files = [Path(path) for path in paths]
    return read_tokens(files, tokenizer, template, options, at_most=at_most)


def edge_blobs(path: Path) -> dict[str, bytes]:
    """What text_reader() takes, of a `.edge` file."""
    header = verify(path)
    there = [name for name in _TEXT_BLOBS if name in header.tensors]
    return {name: bytes(read_tensor(header, name)) for name in there}


def text_reader(where: Path, blobs: Mapping[str, bytes]) -> tuple[Tokenizer, ChatTemplate | None]:
    """What turns texts and chat logs into tokens, from the blobs of a file or of
    extras.text_blobs(). where: named by the FormatError where there is no tokenizer."""
    from edgellm._native import Tokenizer
    from edgellm.chat_template import ChatTemplate, stored_tokens

    if "tokenizer" not in blobs:
        raise FormatError(
            f"{where}: no tokenizer files, so no text can be read; pass CalibrationTokens",
            code="tokenizer_invalid",
        )
    tokenizer = Tokenizer.from_blob(blobs["tokenizer"])
    template = None
    if "chat_template" in blobs:
        special_ids = filter(tokenizer.is_special, range(tokenizer.n_vocab))
        template = ChatTemplate(
            blobs["chat_template"].decode(),
            variables=stored_tokens(blobs.get("special_tokens"), where),
            specials=[tokenizer.token_text(id) for id in special_ids],
        )
    return tokenizer, template
