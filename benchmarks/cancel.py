"""How long a text that is cancelled while its prompt is read takes to end, alone and beside others.

    python benchmarks/cancel.py MODEL.edge [--prompt 2000] [--beside 7] [--rounds 20] [--threads 2]

A thread reads a prompt of random ids; another one cancels it at a random moment and stops the time
until the first has its memory back. `alone`: nothing else runs; `beside`: other texts decode in
threads of their own meanwhile. Prints one JSON object, times in ms; rounds in which the prompt was
read before it could be cancelled do not count.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import threading
import time

import edgellm


def cancelled_ms(model: edgellm.Model, prompt: list[int], after_s: float) -> float | None:
    """None if the text was over before."""
    stream = model.stream(prompt, max_tokens=1, stop_ids=())
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    time.sleep(after_s)
    started = time.perf_counter()
    stream.cancel()
    reader.join()
    ended = time.perf_counter()
    return 1e3 * (ended - started) if stream.finish_reason == "cancelled" else None


def measure(model: edgellm.Model, n_prompt: int, n_rounds: int, most_s: float) -> dict[str, float]:
    draw = random.Random(3)
    n_vocab = model.info().n_vocab
    found = []
    for _ in range(n_rounds):
        prompt = [draw.randrange(n_vocab) for _ in range(n_prompt)]
        taken = cancelled_ms(model, prompt, draw.uniform(0.05, most_s))
        if taken is not None:
            found.append(taken)
    return {
        "n": len(found),
        "median_ms": round(statistics.median(found), 1),
        "most_ms": round(max(found), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=2000)
    parser.add_argument("--beside", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--most-s", type=float, default=2.0, help="cancel within so many seconds")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    model = edgellm.load(args.model, threads=args.threads, verify="never", prefix_cache=0)
    n_ctx, n_vocab = model.info().n_ctx, model.info().n_vocab
    report = {"alone": measure(model, args.prompt, args.rounds, args.most_s)}
    is_over = threading.Event()
    begun = threading.Semaphore(0)

    def decode(seed: int) -> None:
        draw = random.Random(seed)
        prompt = [draw.randrange(n_vocab) for _ in range(32)]
        while not is_over.is_set():
            with model.stream(prompt, max_tokens=min(512, n_ctx - 32), stop_ids=()) as stream:
                for _ in stream:
                    begun.release()
                    if is_over.is_set():
                        return

    others = [threading.Thread(target=decode, args=(seed,)) for seed in range(args.beside)]
    for thread in others:
        thread.start()
    for _ in range(20 * args.beside):
        begun.acquire()
    report["beside"] = measure(model, args.prompt, args.rounds, args.most_s)
    is_over.set()
    for thread in others:
        thread.join()
    print(json.dumps({"model": args.model, "n_prompt": args.prompt, **report}))


if __name__ == "__main__":
    main()
