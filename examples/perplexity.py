"""Perplexity of a text: what the model makes of every next token.

`python examples/perplexity.py MODEL TEXT_FILE` reads as much as the context holds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import edgellm


def perplexity(model: edgellm.Model, ids: list[int]) -> float:
    """exp of the mean negative log probability of ids[1:]."""
    scores = model.logits(ids[:-1]).astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(scores).sum(axis=1))
    log_probs = scores[np.arange(len(ids) - 1), ids[1:]] - log_total
    return float(np.exp(-log_probs.mean()))


def main() -> None:
    model_path, text_path = sys.argv[1:]
    with edgellm.load(model_path) as model:
        ids = model.tokenize(Path(text_path).read_text(encoding="utf-8"))[: model.info().n_ctx]
        print(f"{perplexity(model, ids):.3f} over {len(ids) - 1} tokens")


if __name__ == "__main__":
    main()
