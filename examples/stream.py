"""Stream a story from the built-in model. `python examples/stream.py [MODEL] [PROMPT]`"""

from __future__ import annotations

import sys

import edgellm
from edgellm.sanitize import visible


def main() -> None:
    model_path = sys.argv[1] if len(sys.argv) > 1 else "demo"
    prompt = sys.argv[2] if len(sys.argv) > 2 else "Once upon a time"
    with edgellm.load(model_path) as model:
        stream = model.stream(prompt, max_tokens=100, temperature=0.7, seed=1)
        for token in stream:
            print(visible(token.text), end="", flush=True)
        print(f"\n[{stream.stats.tokens_per_s:.0f} tokens/s, {stream.finish_reason}]")


if __name__ == "__main__":
    main()
