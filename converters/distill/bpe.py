"""A tokenizer from texts: byte-level BPE by `tokenizers`, as the files of a checkpoint.

Its chats are ChatML. The same texts give the same files. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgellm.errors import FormatError, InvalidArgumentError

from ..export.whole import check_target, whole_directory
from .data import documents

END, BEGIN_TURN, END_TURN, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIALS = (END, BEGIN_TURN, END_TURN, PAD)
N_BYTES = 256
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Words with their blank before them, digits one by one, runs of other signs, blanks.
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_bpe(paths: Sequence[Path], out: Path, n_vocab: int) -> int:
    """Writes tokenizer.json and tokenizer_config.json of at most n_vocab tokens, the special ones
    and all bytes included, into the new directory `out` -> the tokens that it has.

    paths: text, .jsonl or .jsonl.xz, as for training. InvalidArgumentError: n_vocab too small.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    least = N_BYTES + len(SPECIALS)
    if not least <= n_vocab <= 1 << 24:
        message = f"n_vocab is {least} to {1 << 24}"
        raise InvalidArgumentError(message, code="invalid_argument")
    check_target(out, 0)
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(paths), trainer)
    with whole_directory(out) as folder:
        tokenizer.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": END_TURN,
            "pad_token": PAD,
            "chat_template": CHATML,
        }
        text = json.dumps(config, indent=1) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return int(tokenizer.get_vocab_size())


def _texts(paths: Sequence[Path]) -> Iterator[str]:
    found = False
    for path in paths:
        for _, _, record in documents(path):
            if isinstance(record.get("text"), str):
                found = True
                yield record["text"]
                continue
            for message in record["messages"]:
                if isinstance(message, dict) and isinstance(message.get("content"), str):
                    found = True
                    yield message["content"]
    if not found:
        raise FormatError(
            f"{', '.join(map(str, paths)) or 'no file'}: no text in it", code="file_too_small"
        )
