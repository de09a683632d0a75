"""A model inside a program: loaded once, asked from asyncio, with progress, a stop and errors.

`python examples/app_integration.py [MODEL] [QUESTION ...]` answers all questions at the same time,
which share the steps of the model, and gives up on those that are not done after a while.
"""

from __future__ import annotations

import asyncio
import sys

import edgellm
from edgellm import CancelToken, PrefillProgress
from edgellm.sanitize import visible

PATIENCE_S = 60.0


class Assistant:
    """What the rest of the program knows of the model. A context manager: owns it."""

    def __init__(self, model: edgellm.Model) -> None:
        self._model = model
        self._stop = CancelToken()

    def __enter__(self) -> Assistant:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.cancel()  # texts under way end, and keep what they have
        self._model.close()

    async def answer(self, question: str) -> str:
        """The reply, or what went wrong in words for a user."""
        prompt = self._model.apply_chat_template([{"role": "user", "content": question}])
        try:
            generation = await self._model.agenerate(
                prompt.ids, max_tokens=64, cancel=self._stop, on_prefill=self._reading
            )
        except edgellm.ContextOverflowError:
            return "Your question is too long for this model."
        except edgellm.EdgeError as error:
            return f"The model failed ({error.code})."
        return f"{generation.text.strip()} [{generation.finish_reason}]"

    def _reading(self, progress: PrefillProgress) -> None:
        if progress.eta_s is not None and progress.eta_s > 1:
            print(f"reading, {progress.eta_s:.0f} s left", file=sys.stderr)


async def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "demo"
    questions = sys.argv[2:] or ["How do I show the current date?", "How do I list all files?"]
    with Assistant(await asyncio.to_thread(edgellm.load, name)) as assistant:
        work = asyncio.gather(*(assistant.answer(one) for one in questions))
        for question, reply in zip(
            questions, await asyncio.wait_for(work, PATIENCE_S), strict=True
        ):
            print(visible(f"{question}\n  {reply}"))


if __name__ == "__main__":
    asyncio.run(main())
