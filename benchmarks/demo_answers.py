"""What the demo says: 20 shell how-to prompts, 10 story openings, unedited, fp32 beside the file.

    python benchmarks/demo_answers.py --model demo.edge --checkpoint DIR --out ANSWERS.md

Greedy, so that whoever runs it again reads the same. fp32: the checkpoint in float32 throughout, by
converters/reference.py. The file: in the native runtime, with its int8 activations and KV. A text
ends at an end token or after --max-tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from edgellm.converters.calibrate.convert import edge_blobs, text_reader
from edgellm.converters.reference import Reference

import edgellm

SHELL = (
    "How do I list all files, including hidden ones?",
    "How do I find files by name in a directory?",
    "Show me how to count the lines of a file.",
    "How do I search for a word in all files of a folder?",
    "Using `tar`, how can I create a compressed archive?",
    "Using `tar`, how can I extract an archive into a directory?",
    "How do I copy a directory with everything in it?",
    "How do I make a script executable?",
    "Which `git` command will create a new branch?",
    "How do I undo the last commit with `git`?",
    "How do I show the disk usage of a folder?",
    "How do I see which process uses a port?",
    "How do I stop a process by its name?",
    "What does the `grep` command do?",
    "What is `curl`?",
    "Using `curl`, how can I download a file and keep its name?",
    "How do I connect to a host over `ssh` with a specific key?",
    "Show me how to copy a file to another host using scp.",
    "How do I print the first ten lines of a file?",
    "How do I sort a file and remove duplicate lines?",
)
STORIES = (
    "Once upon a time there was a little girl who",
    "One day the dog went to the river and",
    "The old man looked at the sea. He",
    "Long ago, in a village by the forest, there lived",
    "Tom and his sister were playing in the garden when",
    "The king had three sons. The youngest",
    "It was raining, and the small bird could not",
    "Grandmother told us about the time when",
    '"Where are you going?" asked the fox.',
    "At night the children heard a noise outside.",
)


@dataclass(frozen=True)
class Answer:
    """Of one prompt. same: tokens from the first on that both chose alike; of: of the shorter."""

    prompt: str
    original: str
    stored: str
    same: int
    of: int


class Pair:
    """A file and the checkpoint that it was made from. SystemExit where their tokens differ."""

    def __init__(self, model: Path, checkpoint: Path, max_tokens: int, threads: int) -> None:
        self._tokenizer, self._template = text_reader(model, edge_blobs(model))
        self._original = Reference.from_checkpoint(checkpoint)
        n_stored, n_original = self._tokenizer.n_vocab, self._original.spec.n_vocab
        if n_stored > n_original:
            raise SystemExit(f"{model} has {n_stored} tokens, {checkpoint} {n_original}")
        self._stored = edgellm.load(model, threads=threads)
        self._max_tokens = max_tokens

    def close(self) -> None:
        self._stored.close()

    def asked(self, question: str) -> Answer:
        """As the first message of a chat."""
        if self._template is None:
            raise SystemExit("the file has no chat template")
        message = [{"role": "user", "content": question}]
        pieces = self._template.pieces(message, add_generation_prompt=True)
        encode = self._tokenizer.encode
        ids = [i for p in pieces for i in encode(p.text, special=not p.plain, bos=False)]
        return self._both(question, ids)

    def continued(self, opening: str) -> Answer:
        return self._both(opening, self._tokenizer.encode(opening))

    def _both(self, prompt: str, ids: list[int]) -> Answer:
        original = self._greedy(ids)
        said = self._stored.generate(ids, max_tokens=self._max_tokens, temperature=0.0)
        stored = list(said.token_ids)
        ends = self._original.spec.eos_ids
        stored = stored[: next((i for i, one in enumerate(stored) if one in ends), len(stored))]
        shorter = min(len(original), len(stored))
        same = next((i for i in range(shorter) if original[i] != stored[i]), shorter)
        texts = [self._tokenizer.decode(one) for one in (original, stored)]
        return Answer(prompt, texts[0], texts[1], same, shorter)

    def _greedy(self, prompt: Sequence[int]) -> list[int]:
        """Without its end token."""
        ids = list(prompt)
        while len(ids) < len(prompt) + self._max_tokens:
            chosen = int(self._original.logits(ids)[-1].argmax())
            if chosen in self._original.spec.eos_ids:
                break
            ids.append(chosen)
        return ids[len(prompt) :]


def table(title: str, answers: Sequence[Answer]) -> list[str]:
    lines = [f"## {title}", "", "| prompt | fp32 | file | same tokens |", "|---|---|---|---|"]
    for one in answers:
        cells = [_cell(one.prompt), _cell(one.original), _cell(one.stored)]
        lines.append(f"| {' | '.join(cells)} | {one.same} of {one.of} |")
    return [*lines, ""]


def _cell(text: str) -> str:
    """Markdown shows it as it is, line ends included."""
    for sign in "\\`*_<>[]|~#":
        text = text.replace(sign, f"\\{sign}")
    return text.strip().replace("\n", "<br>")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    pair = Pair(given.model, given.checkpoint, given.max_tokens, given.threads)
    try:
        shell = [pair.asked(one) for one in SHELL]
        stories = [pair.continued(one) for one in STORIES]
    finally:
        pair.close()
    lines = [f"# What {given.model.name} says", ""]
    lines += [f"Greedy, at most {given.max_tokens} tokens, unedited.", ""]
    lines += table("Shell how-to", shell) + table("Stories", stories)
    given.out.write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
