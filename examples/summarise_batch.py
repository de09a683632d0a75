"""One sentence for each of many files, several at a time: they share the steps of the model.

`python examples/summarise_batch.py MODEL FILE ...`. A file that is longer than the context is cut,
and the line says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import edgellm
from edgellm.sanitize import visible_line

MAX_TOKENS = 60
ROOM = 64  # tokens of the chat template and the question


def asked(model: edgellm.Model, text: str) -> tuple[list[int], bool]:
    """The prompt, and whether the text had to be cut."""
    ids = model.tokenize(text, bos=False)
    most = model.info().n_ctx - MAX_TOKENS - ROOM
    content = f"{model.detokenize(ids[:most])}\n\nSummarise the text above in one sentence."
    prompt = model.apply_chat_template([{"role": "user", "content": content}])
    return prompt.ids, len(ids) > most


def main() -> None:
    name, *files = sys.argv[1:]
    with edgellm.load(name) as model:
        prompts = [asked(model, Path(file).read_text(encoding="utf-8")) for file in files]
        answers = model.generate_batch([ids for ids, _ in prompts], max_tokens=MAX_TOKENS)
    for file, (_, is_cut), answer in zip(files, prompts, answers, strict=True):
        cut = " (its beginning)" if is_cut else ""
        print(visible_line(f"{file}{cut}: {' '.join(answer.text.split())}"))


if __name__ == "__main__":
    main()
