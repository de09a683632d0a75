"""config.json of a pruned model: the source's, with other numbers in it.

Layers that differ are arrays, one entry a layer (intermediate_size, num_attention_heads,
num_key_value_heads). Whether the family can say what was pruned is not known in advance: what was
written is read again and compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgellm.errors import EdgeError, UnsupportedError

from .. import archs
from ..plan import Job
from ..spec import ModelSpec
from .cut import Cut, cut_spec, new_id

_ID_KEYS = ("_token_id", "_token_ids", "_token_index", "suppress_tokens")
_BY_LAYER = ("layer_types", "no_rope_layers")  # arrays that say something of each layer


def pruned_configs(job: Job, cut: Cut) -> tuple[dict[str, Any], dict[str, Any], ModelSpec]:
    """config.json, generation_config.json ({}: none) and the spec that they say. UnsupportedError
    where the family's config.json has no place for what differs."""
    spec = cut_spec(job.spec, cut)
    config = _with_token_ids(_with_layers(dict(job.config), spec, job, cut), cut.tokens)
    generation = job.checkpoint.optional_json("generation_config.json")
    generation = _with_token_ids(generation, cut.tokens)
    why = ""
    for extra in _said_by_layer(spec):
        candidate = config | extra
        try:
            found = archs.find(candidate).to_spec(candidate, generation)
        except EdgeError as error:
            raise _refused(str(error)) from error
        if found == spec:
            return candidate, generation, spec
        why = why or _difference(found, spec)
    raise _refused(why)


def _said_by_layer(spec: ModelSpec) -> Iterator[dict[str, Any]]:
    """What some families else tell by a layer's number, which changes when one before it goes: as
    few keys as will do, since other families do not know them."""
    kinds = {True: "sliding_attention", False: "full_attention"}
    types = {"layer_types": [kinds[layer.window > 0] for layer in spec.layers]}
    ropes = {"no_rope_layers": [int(layer.rope != "none") for layer in spec.layers]}
    yield from ({}, types, ropes, types | ropes)


def _with_layers(config: dict[str, Any], spec: ModelSpec, job: Job, cut: Cut) -> dict[str, Any]:
    """Keys that stay as they are are not touched."""
    before = job.spec
    for key in _BY_LAYER:
        if isinstance(config.get(key), list) and len(spec.layers) < len(before.layers):
            config[key] = [config[key][layer.index] for layer in cut.layers]
    values = {
        "num_hidden_layers": [len(spec.layers), len(before.layers)],
        "vocab_size": [spec.n_vocab, before.n_vocab],
        "tie_word_embeddings": [spec.tied_head, config.get("tie_word_embeddings", spec.tied_head)],
    }
    for key, (now, then) in values.items():
        if now != then:
            config[key] = now
    fields = {
        "intermediate_size": "d_ffn",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
    }
    for key, name in fields.items():
        now = [getattr(layer, name) for layer in spec.layers]
        then = [getattr(before.layers[layer.index], name) for layer in cut.layers]
        if now != then or isinstance(config.get(key), list):
            config[key] = archs.by_layer(now)
        if now != then and name == "n_heads":
            config["head_dim"] = spec.layers[0].head_dim
    return config


def token_ids(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """The ids of tokens that a config names, by key."""
    keys = [key for key in config if key.endswith(_ID_KEYS)]
    return {key: list(_flat(config[key])) for key in keys}


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _with_token_ids(config: Mapping[str, Any], tokens: Sequence[int] | None) -> dict[str, Any]:
    """UnsupportedError for an id of a token that went."""
    result = dict(config)
    for key, ids in token_ids(config).items() if tokens is not None else ():
        assert tokens is not None
        try:
            new = {old: new_id(tokens, old) for old in ids}
        except ValueError:
            value = json.dumps(config[key])[:80]
            raise _refused(f"{key} = {value} names a token that goes") from None
        result[key] = _renumbered(config[key], new)
    return result


def _renumbered(value: Any, new: Mapping[int, int]) -> Any:
    if isinstance(value, list):
        return [_renumbered(item, new) for item in value]
    is_id = isinstance(value, int) and not isinstance(value, bool)
    return new[value] if is_id else value


def _difference(found: ModelSpec, wanted: ModelSpec) -> str:
    """Where the two first differ."""
    ours, theirs = wanted.to_dict(), found.to_dict()
    pairs = zip(ours["layers"], theirs["layers"], strict=False)
    for index, (a, b) in enumerate(pairs):
        for key in a | b:
            if a.get(key) != b.get(key):
                return f"layer {index}: {key} would be read as {b.get(key)}, not {a.get(key)}"
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    return f"{', '.join(keys)} would be read as something else"


def _refused(why: str) -> UnsupportedError:
    return UnsupportedError(
        f"config.json of this family cannot say what is left of the model: {why}; prune less, or "
        "something else",
        code="feature_unsupported",
    )
