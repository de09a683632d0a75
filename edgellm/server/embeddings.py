"""/v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from ..completions.fields import Fields, sound, wrong
from .engine import Engine

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..model import Model

_MAX_INPUTS = 2048


async def embeddings(engine: Engine, body: dict[str, Any], resources: AsyncExitStack) -> Response:
    """POST /v1/embeddings: vectors of unit length, or as the model's author says."""
    fields = Fields(body)
    name = fields.text("model")
    inputs = _inputs(fields.take("input", (str, list, tuple), "a text, texts or token ids"))
    form = fields.text("encoding_format") or "float"
    n_dims = fields.count("dimensions", least=1)
    fields.end()
    if form not in ("float", "base64"):
        raise wrong(f"encoding_format must be float or base64, but is {form!r:.60}")
    view = await resources.enter_async_context(engine.turn(name, 1))
    vectors, n_tokens = await asyncio.to_thread(_embed, view.model, inputs)
    if n_dims not in (None, vectors.shape[1]):
        raise wrong(f"dimensions must be {vectors.shape[1]}, but is {n_dims}: none are left out")
    data = [
        {"object": "embedding", "index": at, "embedding": _encoded(vector, form)}
        for at, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    engine.metrics.tokens["prompt"] += n_tokens
    return JSONResponse({"object": "list", "data": data, "model": view.name, "usage": usage})


def _inputs(given: Any) -> list[str] | list[list[int]]:
    if isinstance(given, str):
        return [sound(given, "input")]
    if given and all(isinstance(one, str) for one in given) and len(given) <= _MAX_INPUTS:
        return [sound(one, f"input[{at}]") for at, one in enumerate(given)]
    if given and all(type(one) is int for one in given):
        return [list(given)]
    is_ids = given and all(
        isinstance(one, list) and one and all(type(i) is int for i in one) for one in given
    )
    if is_ids and len(given) <= _MAX_INPUTS:
        return [list(one) for one in given]
    raise wrong(f"input must be a text, token ids, or up to {_MAX_INPUTS} of one of these")


def _embed(
    model: Model, inputs: list[str] | list[list[int]]
) -> tuple[npt.NDArray[np.float32], int]:
    """Vectors [n, d_model], and the tokens of all inputs."""
    import numpy as np

    texts = [one for one in inputs if isinstance(one, str)]
    if texts:
        return model.embed(texts), sum(len(model.tokenize(text)) for text in texts)
    ids = [one for one in inputs if isinstance(one, list)]
    return np.concatenate([model.embed(one) for one in ids]), sum(map(len, ids))


def _encoded(vector: npt.NDArray[np.float32], form: str) -> list[float] | str:
    if form == "float":
        return [float(value) for value in vector]
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
