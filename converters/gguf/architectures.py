"""The architectures of GGUF that are read and written: what each calls for, in one table.

What llama.cpp's code for an architecture lacks (src/models/*.cpp there) is said here, so that no
file is written that it would refuse or run otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..spec import LayerSpec, ModelSpec

FREQS, LONGROPE = "rope_freqs", "rope_factors"  # tensors that scale rotary frequencies
_BIASES = ("o_bias", "ffn_bias")


@dataclass(frozen=True)
class Architecture:
    """name: of transformers' class. in_pairs: rotary dimensions are neighbours in the file and not
    halves of a head, as transformers has them. rms: its norms have no mean.

    Of files that llama.cpp reads: holds: families, as specs call them. wholes: tensors in which
    several of ours stand (see Place). biases: those that a layer may have beside q, k and v's.
    tied: whether the head is always, or never, the embedding; None: either. scalings: FREQS,
    LONGROPE. wide: heads need not have the width of the model together. has_windows: there is a
    key for them.
    """

    name: str
    holds: tuple[str, ...]
    in_pairs: bool = False
    rms: bool = True
    wholes: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    tied: bool | None = None
    scalings: tuple[str, ...] = ()
    wide: bool = False
    has_windows: bool = False

    def lacks(self, spec: ModelSpec) -> list[str]:
        """What a model has that cannot be said in keys or is not there in llama.cpp."""
        found = in_layers([self._of(layer) for layer in spec.layers])
        width = spec.layers[0].n_heads * spec.layers[0].head_dim
        if not self.wide and width != spec.d_model:
            found.append(f"heads of {width} dimensions together, the model having {spec.d_model}")
        if len({bool(layer.n_experts) for layer in spec.layers}) > 1:
            found.append("layers with experts beside layers without")
        if self.tied and not spec.tied_head:
            found.append("a head beside the embedding")
        if spec.headless:
            found.append("no head")
        if "gemma2" in self.holds and not spec.final_softcap:
            found.append("no final_softcap")
        return found

    def _of(self, layer: LayerSpec) -> list[str]:
        found = [name for name in _BIASES if getattr(layer, name) and name not in self.biases]
        if "olmoe" in self.holds and layer.n_kv_heads != layer.n_heads:
            found.append("fewer heads of keys than of queries")
        if "gemma2" in self.holds and not layer.attn_softcap:
            found.append("no attn_softcap")
        if "qwen2_moe" in self.holds and not (layer.d_shared and layer.shared_gate):
            found.append("no shared expert behind a gate")
        return found


def in_layers(found: Sequence[Sequence[str]]) -> list[str]:
    """What was found in each layer, the same of several layers once."""
    layers: dict[str, list[int]] = {}
    for index, items in enumerate(found):
        for what in items:
            layers.setdefault(what, []).append(index)
    return [
        f"{what} in every layer"
        if len(indices) == len(found)
        else f"{what} in layer{'s' * (len(indices) > 1)} {', '.join(map(str, indices[:8]))}"
        for what, indices in layers.items()
    ]


def _like_llama(name: str, *holds: str) -> Architecture:
    scalings = (FREQS, LONGROPE)
    return Architecture(name, holds, in_pairs=True, biases=_BIASES, scalings=scalings, wide=True)


# By general.architecture.
ARCHITECTURES: Mapping[str, Architecture] = {
    "gemma": Architecture("GemmaForCausalLM", ("gemma",), tied=True, wide=True),
    "gemma2": Architecture(
        "Gemma2ForCausalLM", ("gemma2",), tied=True, wide=True, has_windows=True
    ),
    "gemma3": Architecture("Gemma3ForCausalLM", ("gemma3",), wide=True, has_windows=True),
    "gpt2": Architecture(
        "GPT2LMHeadModel", ("gpt2",), rms=False, wholes=("attn_qkv",), biases=_BIASES
    ),
    "gptneox": Architecture(
        "GPTNeoXForCausalLM",
        ("gpt_neox",),
        rms=False,
        wholes=("attn_qkv",),
        biases=_BIASES,
        tied=False,
    ),
    "granite": _like_llama("GraniteForCausalLM", "granite"),
    "lfm2": Architecture("Lfm2ForCausalLM", (), wide=True),  # read only
    "llama": _like_llama("LlamaForCausalLM", "llama", "mistral", "mixtral"),
    "olmo2": Architecture("Olmo2ForCausalLM", ("olmo2",), tied=False),
    "olmoe": Architecture("OlmoeForCausalLM", ("olmoe",), tied=False),
    "phi3": Architecture(
        "Phi3ForCausalLM",
        ("phi3",),
        wholes=("attn_qkv", "ffn_up"),
        scalings=(LONGROPE,),
        has_windows=True,
    ),
    "qwen2": Architecture("Qwen2ForCausalLM", ("qwen2",)),
    "qwen2moe": Architecture("Qwen2MoeForCausalLM", ("qwen2_moe",), tied=False),
    "qwen3": Architecture("Qwen3ForCausalLM", ("qwen3",), wide=True),
    "qwen3moe": Architecture("Qwen3MoeForCausalLM", ("qwen3_moe",), tied=False, wide=True),
    "smollm3": Architecture("SmolLM3ForCausalLM", ("smollm3",), in_pairs=True, wide=True),
    "stablelm": Architecture(
        "StableLmForCausalLM", ("stablelm",), rms=False, wholes=("attn_norm",), tied=False
    ),
}
