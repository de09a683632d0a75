"""A demo model: texts, tokenizer, training, compression, model card.

    python examples/train_demo.py prepare --data shared/data --work DIR [--from CHECKPOINT]
    edgellm train DIR/train.toml            # stop it, call it again: it goes on to the same bits
    edgellm compress DIR/compress.toml      # the same
    python examples/train_demo.py card --data shared/data --work DIR

`prepare` writes the texts (dialogues as chats, so that ChatML is learnt; short kinds several
times), a byte-level BPE tokenizer of 8,192 tokens, config.json of a Llama and the two recipes;
`card` writes DIR/MODEL_CARD.md of what the runs left. `--size small` has 6.8 M parameters, `large`
26 M. Data: `corpus/` with train.jsonl.xz, valid.jsonl.xz and SOURCES.md.

`--from CHECKPOINT` goes on from a model of that shape with byte-level BPE and tied embeddings, such
as seed6m, in hours instead of days: a token of the new tokenizer begins as the mean of the old ones
that spell it, all else as it is, and long texts are thinned out. `--threads`: of the training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

N_VOCAB, N_CTX, WINDOW_TOKENS, BATCH_WINDOWS = 8192, 512, 256, 32
SIZES = {
    "small": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6},
    "large": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 7},
}
HEAD_DIM, QUERIES_PER_KV_HEAD = 64, 2
RATE, RATE_ON = 3e-3, 2e-3  # from scratch; of a model that has learnt
SAVE_STEPS = 50  # between what a run that is stopped goes on from, at most
EMBEDDING = "model.embed_tokens.weight"
NOT_OF_SHAPE = ("vocab_size", "eos_token_id", "bos_token_id")
F32Array = npt.NDArray[np.float32]
# Documents of these sources are learnt so often: they are short, and what the demo is asked for.
TIMES = {
    "tldr-pages/tldr": 2,
    "microsoft/botframework-cli": 3,
    "global-asp/pb-source": 3,
    "global-asp/asp-source": 3,
}
# Going on from a model, of these kinds every so manyth document: hours do not see ten times more.
THINNED = {"books": 8, "docs": 24, "code": 24}
TOKENIZER_STRIDE = 8  # of the documents every so manyth trains the tokenizer
TURN = re.compile(r"^(User|Assistant): ", re.MULTILINE)
ROLES = {"User": "user", "Assistant": "assistant"}

TRAIN = """# Written by examples/train_demo.py.
student = "student"
out = "trained"
[data]
files = ["train.jsonl"]
valid = ["valid.jsonl"]
window_tokens = {window}
valid_windows = 64
[optimizer]
name = "muon"
rate = {rate}
[schedule]
kind = "wsd"
steps = {steps}
warmup = {warmup}
decay = {decay}
final = 0
[batch]
windows = {windows}
dtype = "bf16"
threads = {threads}
save_every = {save_every}
valid_every = {valid_every}
"""
COMPRESS = """# Written by examples/train_demo.py.
source = "trained"
out = "demo.edge"
threads = {threads}
[texts]
train = ["train.jsonl"]
valid = ["valid.jsonl"]
calibration = ["calibration.jsonl"]
window_tokens = {window}
valid_windows = 64
[[steps]]
do = "quantize"
recipe = "formats.toml"
[[steps]]
do = "refine"
learn = "scales"
window_tokens = {window}
[steps.schedule]
steps = {steps}
warmup = {warmup}
[steps.optimizer]
scale_rate = 1e-3
clip = 0
[[steps]]
do = "draft_head"
samples = {samples}
text_windows = {text_windows}
dtype = "bf16"
"""
FORMATS = """# Written by examples/train_demo.py: 4.5 bits a weight, the embedding 6.5.
[calibration]
n_windows = {n_windows}
window_tokens = {window}
[[rules]]
pattern = "token_embd"
format = "E6_16"
method = "gptq"
damping = 1.0
n_passes = 0
[[rules]]
pattern = "*"
format = "E4_16"
method = "gptaq"
"""

CARD = """# The demo model

A Llama-shaped language model trained {origin} for edgellm by `examples/train_demo.py`: {layers}
layers, width {width}, {heads} query and {kv_heads} key/value heads of {head_dim}, FFN {ffn}, tied
embeddings, context {n_ctx}, vocabulary {n_vocab:,} byte-level BPE, ChatML.

- **Data**: {documents:,} documents of a corpus with SHA-256 `{digest}`; no share-alike and no
  non-commercial source. Attribution: below.
- **Training**: {steps:,} steps, {tokens:,} tokens, loss {loss:.3f} nats per token in the end.
- **Held out** (other books and repositories, {measured:,} tokens): perplexity {before:.2f} before
  compression, {after:.2f} after it; KL(original, file) {kl:.5f} nats per token.
- **Size**: {n_bytes:,} bytes, with a draft head of {layers_of_head:.2f} layers whose first guess is
  right for {greedy:.1%} of the tokens of held-out text.
- **Limits**: no facts, no arithmetic, no reasoning, no safety. For demonstrations and tests only;
  never run a command it suggests without knowing what it does. The train split of GSM8K is in the
  data: no figure on it means anything.
- **Licence of the weights**: Apache-2.0, with the attributions below. Books are in the public
  domain in the USA.

| repository | documents | commit | licence as stated |
|---|---|---|---|
"""


def documents(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def record(document: dict[str, Any]) -> dict[str, Any]:
    """A line to learn from: a dialogue as a chat, another text as it is."""
    kind = document["kind"]
    if kind != "dialogue":
        return {"text": document["text"], "kind": kind}
    parts = TURN.split(document["text"])[1:]
    messages = [
        {"role": ROLES[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if not messages:
        return {"text": document["text"], "kind": kind}
    return {"messages": messages, "kind": kind}


def repository(document: dict[str, Any]) -> str:
    return str(document["source"]).partition(":")[0]


def write_texts(data: Path, work: Path, stride: int, thinned: dict[str, int]) -> dict[str, int]:
    """train, valid, calibration and tokenizer .jsonl -> documents by repository. thinned: of a kind
    every so manyth."""
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    with (
        (work / "train.jsonl").open("w", encoding="utf-8") as train,
        (work / "calibration.jsonl").open("w", encoding="utf-8") as calibration,
        (work / "tokenizer.jsonl").open("w", encoding="utf-8") as tokenizer,
    ):
        for index, document in enumerate(documents(data / "corpus" / "train.jsonl.xz")):
            seen[document["kind"]] += 1
            if index % stride or (seen[document["kind"]] - 1) % thinned.get(document["kind"], 1):
                continue
            line = json.dumps(record(document)) + "\n"
            counts[repository(document)] += 1
            train.write(line * TIMES.get(repository(document), 1))
            if counts.total() % TOKENIZER_STRIDE == 0:
                tokenizer.write(line)
            elif counts.total() % TOKENIZER_STRIDE == 1:
                calibration.write(line)
    with (work / "valid.jsonl").open("w", encoding="utf-8") as valid:
        for document in documents(data / "corpus" / "valid.jsonl.xz"):
            valid.write(json.dumps(record(document)) + "\n")
    return dict(counts)


def config(size: str, n_vocab: int) -> dict[str, Any]:
    shape = SIZES[size]
    n_heads = shape["hidden_size"] // HEAD_DIM
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **shape,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_heads // QUERIES_PER_KV_HEAD,
        "head_dim": HEAD_DIM,
        "vocab_size": n_vocab,
        "max_position_embeddings": N_CTX,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": [2, 0],  # the end of a turn, the end of a text
    }


def rows_by_spelling(embedding: F32Array, old: Any, new: Any, n_vocab: int) -> F32Array:
    """The embedding [n_vocab, width] of tokenizer `new` from that of `old`, both byte-level BPE of
    `tokenizers`: a token is the mean of those that `old` spells it with, special ones are
    themselves. Rows without a token are zeros."""
    same = old.get_added_tokens_decoder().values()
    special = {token.content: old.token_to_id(token.content) for token in same}
    rows = np.zeros((n_vocab, embedding.shape[1]), dtype=np.float32)
    for piece, index in new.get_vocab().items():
        spelt = [special[piece]] if piece in special else []
        spelt = spelt or [token.id for token in old.model.tokenize(piece)]
        rows[index] = embedding[spelt].mean(0)
    return rows


def begin_from(checkpoint: Path, student: Path, shape: dict[str, Any]) -> None:
    """Writes the student's weights: the checkpoint's, with an embedding for its own tokenizer.
    SystemExit where the shapes differ."""
    from edgellm.converters.sources import open_checkpoint
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer

    with open_checkpoint(checkpoint) as opened:
        differs = [
            f"{key} {opened.config.get(key)}, not {wanted}"
            for key, wanted in shape.items()
            if key not in NOT_OF_SHAPE and opened.config.get(key) != wanted
        ]
        if differs:
            raise SystemExit(f"{checkpoint}: another shape: {'; '.join(differs)}")
        weights = {
            name: opened.read_rows(name, 0, info.shape[0] if len(info.shape) == 2 else 1).reshape(
                info.shape
            )
            for name, info in opened.tensors.items()
        }
    old, new = (Tokenizer.from_file(str(one / "tokenizer.json")) for one in (checkpoint, student))
    weights[EMBEDDING] = rows_by_spelling(weights[EMBEDDING], old, new, shape["vocab_size"])
    save_file(weights, student / "model.safetensors", metadata={"format": "pt"})


def prepare(data: Path, work: Path, options: argparse.Namespace) -> None:
    from edgellm.converters.distill.bpe import train_bpe

    steps, begin = options.steps, options.begin
    work.mkdir(parents=True)
    counts = write_texts(data, work, options.stride, THINNED if begin else {})
    student = work / "student"
    n_vocab = train_bpe([work / "tokenizer.jsonl"], student, N_VOCAB)
    n_vocab += -n_vocab % 256
    shape = config(options.size, n_vocab)
    (student / "config.json").write_text(json.dumps(shape, indent=1), "utf-8")
    if begin:
        begin_from(begin, student, shape)
    every = max(1, steps // 20)
    filled = {"window": WINDOW_TOKENS, "windows": BATCH_WINDOWS, "steps": steps}
    filled |= {"warmup": steps // 50, "decay": steps // 4, "rate": RATE_ON if begin else RATE}
    filled |= {"save_every": min(every, SAVE_STEPS), "valid_every": every}
    filled |= {"threads": options.threads}
    refining = {"window": WINDOW_TOKENS, "steps": max(2, steps // 50), "warmup": 1}
    refining |= {"threads": options.threads, "samples": 512, "text_windows": 2048}
    n_windows = min(128, max(4, counts_windows(work)))
    texts = {
        "train.toml": TRAIN.format(**filled),
        "compress.toml": COMPRESS.format(**refining),
        "formats.toml": FORMATS.format(window=WINDOW_TOKENS, n_windows=n_windows),
        "sources.json": json.dumps(
            {
                "size": options.size,
                "n_vocab": n_vocab,
                "documents": counts,
                "begin": begin.resolve().name if begin else None,
            }
        ),
    }
    for name, text in texts.items():
        (work / name).write_text(text, encoding="utf-8")


def counts_windows(work: Path) -> int:
    """Windows that the calibration text surely has: a token is rarely more than eight bytes."""
    return (work / "calibration.jsonl").stat().st_size // (8 * WINDOW_TOKENS)


def card(data: Path, work: Path) -> str:
    prepared = json.loads((work / "sources.json").read_text(encoding="utf-8"))
    report = json.loads((work / "demo.report.json").read_text(encoding="utf-8"))
    curve = (work / "trained.work" / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    last = [line for line in map(json.loads, curve) if "n_tokens" in line][-1]
    with (data / "corpus" / "train.jsonl.xz").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    shape = config(prepared["size"], prepared["n_vocab"])
    first, final = report["steps"][0], report["steps"][-1]
    begin = prepared["begin"]
    filled = CARD.format(
        origin=f"on from {begin}" if begin else "from scratch",
        layers=shape["num_hidden_layers"],
        width=shape["hidden_size"],
        heads=shape["num_attention_heads"],
        kv_heads=shape["num_key_value_heads"],
        head_dim=HEAD_DIM,
        ffn=shape["intermediate_size"],
        n_ctx=N_CTX,
        n_vocab=prepared["n_vocab"],
        documents=sum(prepared["documents"].values()),
        digest=digest,
        steps=last["step"],
        tokens=last["n_tokens"],
        loss=last["loss"],
        measured=report["n_tokens_measured"],
        before=first["perplexity"],
        after=final["perplexity"],
        kl=final["kl"],
        n_bytes=final["n_bytes"],
        layers_of_head=final["figures"]["layers"],
        greedy=final["figures"]["text"][0]["greedy"],
    )
    rows = attribution(data / "corpus" / "SOURCES.md", prepared["documents"])
    return filled + "\n".join(rows) + "\n"


def attribution(sources: Path, counts: dict[str, int]) -> Iterator[str]:
    """A row for every repository that was learnt from. SystemExit for one without a licence."""
    stated: dict[str, tuple[str, str]] = {}
    for line in sources.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) >= 3 and "/" in cells[0]:
            stated[cells[0]] = (cells[1], cells[2])
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        if name not in stated:
            raise SystemExit(f"{sources}: says nothing of {name}; leave it out or add it")
        commit, licence = stated[name]
        yield f"| {name} | {count:,} | {commit[:12]} | {licence} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=("prepare", "card"))
    parser.add_argument("--data", type=Path, required=True, help="folder with corpus/")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--stride", type=int, default=1, help="every so manyth document")
    parser.add_argument("--from", dest="begin", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--threads", type=int, default=0, help="0: all performance cores")
    args = parser.parse_args()
    if args.do == "prepare":
        prepare(args.data, args.work, args)
    else:
        text = card(args.data, args.work)
        (args.work / "MODEL_CARD.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
