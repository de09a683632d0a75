"""Answers from your own files: the passages nearest to a question go into the prompt.

`python examples/rag.py MODEL QUESTION FILE ...` prints the passages that were found, with where
they stand, and the answer. An embedding model finds better than a chat model: `--embedder MODEL`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import edgellm
from edgellm.sanitize import visible

N_FOUND = 2
MAX_CHARS = 600  # of a passage


@dataclass(frozen=True)
class Passage:
    where: str
    text: str


def passages_of(path: Path) -> list[Passage]:
    """Its paragraphs, cut where they are long."""
    found, line = [], 1
    for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
        text = " ".join(paragraph.split())
        found += [
            Passage(f"{path.name}:{line}", text[at : at + MAX_CHARS])
            for at in range(0, len(text), MAX_CHARS)
        ]
        line += paragraph.count("\n") + 2
    return found


def nearest(model: edgellm.Model, question: str, passages: list[Passage]) -> list[Passage]:
    """By cosine similarity: vectors are of length 1. In the order of the files."""
    vectors = model.embed([passage.text for passage in passages], truncate=True)
    scores = vectors @ model.embed(question)[0]
    best = sorted(range(len(passages)), key=lambda at: -scores[at])[:N_FOUND]
    return [passages[at] for at in sorted(best)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("question")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--embedder", help="a model for the search alone")
    given = parser.parse_args()
    passages = [passage for path in given.files for passage in passages_of(path)]
    if not passages:
        parser.error("the files hold no text")
    with edgellm.load(given.model) as model:
        if given.embedder is None:
            found = nearest(model, given.question, passages)
        else:
            with edgellm.load(given.embedder) as embedder:
                found = nearest(embedder, given.question, passages)
        context = "\n".join(f"[{at}] {passage.text}" for at, passage in enumerate(found, 1))
        asked = f"{context}\n\nAnswer from the text above: {given.question}"
        with model.chat() as chat:
            reply = chat.send(asked, max_tokens=80)
    for at, passage in enumerate(found, 1):
        print(visible(f"[{at}] {passage.where}: {passage.text[:70]}"))
    print(visible(reply.text.strip()))


if __name__ == "__main__":
    main()
