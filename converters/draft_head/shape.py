"""How large a draft head is: its layer, its vocabulary, its tensors and their bytes. No torch.

A head is a model of one layer whose spec is a ModelSpec; what stands before the layer, instead of
an embedding, is fuse_embed and fuse_hidden. Native twin: native/src/model/draft_weights.cc.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from edgellm.edgefile import tensor_bytes
from edgellm.errors import UnsupportedError

from ..layout import Slot, norm_slots, tensor_slots
from ..recipe import EMBED_ROLE
from ..spec import ModelSpec
from .options import DraftHeadOptions

IDS = (
    "ids"  # blob: little-endian int32 [n_vocab], ascending: the model's ids of what can be drafted
)
VOCAB_UNIT = 64
FFN_UNIT = 64  # the prune's tile, too: whole strips and whole tiles
VOCAB_SHARE = 0.68  # of the bytes that vocabulary and feed-forward network divide between them


def head_spec(target: ModelSpec, n_vocab: int, d_ffn: int) -> ModelSpec:
    """A layer of the target's own kind, its last, without experts and without a window."""
    layer = replace(
        target.layers[-1],
        d_ffn=d_ffn,
        window=0,
        rotate_keys=False,
        balance_keys=False,
        n_experts=0,
        n_experts_used=0,
        d_expert=0,
        d_shared=0,
        shared_gate=False,
        norm_topk=False,
    )
    return replace(
        target,
        n_vocab=n_vocab,
        tied_head=False,
        n_positions=0,
        bos_id=-1,
        eos_ids=(),
        layers=(layer,),
    )


def head_slots(spec: ModelSpec) -> list[Slot]:
    """Tensors of a head in file order, beside the blob of its ids."""
    d_model = spec.d_model
    slots = [*norm_slots(spec, "embed_norm"), Slot("fuse_embed", (d_model, d_model))]
    slots += [*norm_slots(spec, "hidden_norm"), Slot("fuse_hidden", (d_model, d_model))]
    return slots + [slot for slot in tensor_slots(spec) if slot.role != EMBED_ROLE]


def head_bytes(spec: ModelSpec, format: str) -> int:
    """What a draft of one token reads, all of the head."""
    sizes = (
        tensor_bytes("F32" if len(slot.shape) == 1 else format, *_rows_cols(slot.shape))
        for slot in head_slots(spec)
    )
    return sum(sizes) + 4 * spec.n_vocab


def step_bytes(spec: ModelSpec, tensors: Mapping[str, int]) -> int:
    """What the model reads to decode a token, without keys and values. tensors: bytes by name."""
    looked_up = () if spec.tied_head else (EMBED_ROLE,)
    read = (
        n_bytes * _used_share(spec, name)
        for name, n_bytes in tensors.items()
        if name not in (*looked_up, "position_embd")
    )
    return int(sum(read))


def layer_bytes(spec: ModelSpec, tensors: Mapping[str, int]) -> int:
    """Of the last layer, as step_bytes()."""
    prefix = f"layers.{len(spec.layers) - 1}."
    own = {name: n_bytes for name, n_bytes in tensors.items() if name.startswith(prefix)}
    return step_bytes(spec, own)


def fitted(target: ModelSpec, tensors: Mapping[str, int], options: DraftHeadOptions) -> ModelSpec:
    """The head's spec: what the options leave open is as large as the bytes allow.
    UnsupportedError where that is nothing."""
    limit = max(
        int(options.step_share * step_bytes(target, tensors)),
        int(options.layer_share * layer_bytes(target, tensors)),
    )

    def n_left(n_vocab: int, d_ffn: int) -> int:
        return limit - head_bytes(head_spec(target, n_vocab, d_ffn), options.format)

    n_vocab, d_ffn = options.vocab, options.d_ffn
    if not n_vocab:
        rest = n_left(VOCAB_UNIT, FFN_UNIT) if not d_ffn else n_left(VOCAB_UNIT, d_ffn)
        share = VOCAB_SHARE if not d_ffn else 1.0
        of_unit = tensor_bytes(options.format, VOCAB_UNIT, target.d_model) + 4 * VOCAB_UNIT
        n_vocab = VOCAB_UNIT * (1 + max(0, int(share * rest)) // of_unit)
    n_vocab = min(n_vocab, target.n_vocab)
    if not d_ffn:
        d_ffn = max(FFN_UNIT, layer_width(target) // FFN_UNIT * FFN_UNIT)
        while d_ffn > FFN_UNIT and n_left(n_vocab, d_ffn) < 0:
            d_ffn -= FFN_UNIT
    if n_left(n_vocab, d_ffn) < 0:
        raise UnsupportedError(
            f"a draft head of {n_vocab} tokens and a width of {d_ffn} has "
            f"{limit - n_left(n_vocab, d_ffn)} bytes, {limit} are allowed; choose a smaller vocab "
            "or d_ffn, or a larger step_share",
            code="feature_unsupported",
        )
    return head_spec(target, n_vocab, d_ffn)


def layer_width(target: ModelSpec) -> int:
    """Of the last layer's feed-forward network: what a token sees of it, where it has experts."""
    layer = target.layers[-1]
    return layer.d_ffn or layer.d_expert * layer.n_experts_used + layer.d_shared


def _used_share(spec: ModelSpec, name: str) -> float:
    if not name.endswith("_exps"):
        return 1.0
    layer = spec.layers[int(name.split(".")[1])]
    return layer.n_experts_used / layer.n_experts


def _rows_cols(shape: Iterable[int]) -> tuple[int, int]:
    sizes = tuple(shape)
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
