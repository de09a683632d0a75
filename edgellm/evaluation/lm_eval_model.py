"""The model class `edgellm` for EleutherAI's lm-evaluation-harness.

    python -m edgellm.evaluation.lm_eval_model run --model edgellm \\
        --model_args model=model.edge,threads=4 --tasks hellaswag

runs the harness with the class registered; in Python, importing this module registers it. Needs
`pip install lm_eval` (without torch: the harness does not need it for this class). Requests that
share a prompt share its KV cache. Chat templates of the harness are not supported: it asks for
text, in which a user's words could become special tokens; golden sets have `messages` for that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ContextOverflowError, InvalidArgumentError, UnsupportedError
from ..options import GenerateOptions
from .continuations import Continuations, front_ids, generated_text, split_continuation
from .models import EvaluatedModel

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows
except ModuleNotFoundError as error:
    _MESSAGE = f"lm-evaluation-harness is missing ({error.name}): pip install lm_eval"
    raise UnsupportedError(_MESSAGE, code="feature_unsupported") from error

_DEFAULT_MAX_TOKENS = 256
_MAX_TOKENS_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING_NAMES = ("top_k", "top_p", "min_p", "seed")
_logger = logging.getLogger(__name__)


class EdgeLM(LM):
    """A `.edge` file as the harness wants it.

    model: the file, or "demo". threads: None for all performance cores. batch_size and
    max_batch_size are the harness's own and change nothing: a result never depends on its
    neighbours. device: the CPU is used whatever it says, and a warning says so.
    """

    def __init__(
        self,
        model: str,
        *,
        threads: int | None = None,
        batch_size: int | str | None = None,  # noqa: ARG002
        max_batch_size: int | None = None,  # noqa: ARG002
        device: str | None = None,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):  # the harness's own default is "cuda:0"
            _logger.warning("edgellm runs on the CPU, not on %s", device)
        self.n_truncated = 0  # requests whose prompt was cut on the left, as the harness expects
        self._model = EvaluatedModel(model, threads=threads)
        self._continuations = Continuations(self._model)

    @property
    def tokenizer_name(self) -> str:
        return self._model.vocabulary_sha256

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log probability in nats, whether greedy decoding would say it) of each continuation."""
        found = []
        for request in requests:
            context, continuation = request.args
            prompt, rest = split_continuation(self._model, context, continuation)
            prompt = self._fitting(prompt, self._continuations.n_ctx + 1 - len(rest))
            scored = self._continuations.score(prompt, rest)
            found.append((scored.log_prob, scored.is_greedy))
            self.cache_hook.add_partial("loglikelihood", request.args, found[-1])
        self._warn_of_truncation()
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log probability in nats of each whole text, in windows as the harness defines them."""
        found = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self._model.tokenizer.encode(text, special=False, bos=False),
                prefix_token=front_ids(self._model)[0],
                max_seq_len=self._continuations.n_ctx,
                context_len=1,
            )
            total = 0.0
            for inputs, predicted in windows:
                prompt = inputs[: len(inputs) - len(predicted) + 1]
                total += self._continuations.score(prompt, predicted).log_prob
            found.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The continuation of each context, up to a stop string, which is left out."""
        found = []
        for request in requests:
            context, arguments = request.args
            options = generate_options(arguments)
            ids = self._model.tokenizer.encode(context, special=False, bos=True)
            n_ctx = self._continuations.n_ctx
            prompt = self._fitting(ids or front_ids(self._model), n_ctx - options.max_tokens)
            found.append(generated_text(self._model, prompt, options))
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
        self._warn_of_truncation()
        return found

    def _fitting(self, prompt: list[int], n_room: int) -> list[int]:
        """The end of `prompt` that fits; a start token stays at its start."""
        if len(prompt) <= n_room:
            return prompt
        prefix = self._model.prefix_ids
        n_kept = n_room - len(prefix)
        if n_kept < 1:
            message = (
                f"a continuation leaves {n_room} tokens of the context of {self._model.name} for "
                "its prompt; lower max_gen_toks or leave the task out"
            )
            raise ContextOverflowError(message, code="context_overflow")
        self.n_truncated += 1
        return [*prefix, *prompt[-n_kept:]]

    def _warn_of_truncation(self) -> None:
        if self.n_truncated:
            _logger.warning("%d prompts so far were cut on the left to fit", self.n_truncated)


def generate_options(arguments: Mapping[str, Any]) -> GenerateOptions:
    """The harness's gen_kwargs; InvalidArgumentError for one that would not be honoured."""
    left = dict(arguments)
    until = left.pop("until", None) or ()
    limits = [left.pop(name) for name in _MAX_TOKENS_NAMES if name in left]
    temperature = float(left.pop("temperature", None) or 0.0)
    do_sample = left.pop("do_sample", temperature > 0)
    if do_sample and temperature == 0:
        temperature = 1.0
    sampling = {name: left.pop(name) for name in _SAMPLING_NAMES if name in left}
    if left:
        message = f"gen_kwargs {sorted(left)} are not supported by edgellm; leave them out"
        raise InvalidArgumentError(message, code="invalid_argument")
    return GenerateOptions(
        max_tokens=int(limits[0]) if limits else _DEFAULT_MAX_TOKENS,
        temperature=temperature if do_sample else 0.0,
        stop=(until,) if isinstance(until, str) else tuple(until),
        **sampling,
    )


register_model("edgellm")(EdgeLM)


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
