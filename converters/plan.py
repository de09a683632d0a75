"""Decides a whole conversion from config.json and tensor names, before a weight is read.

What cannot be honoured is refused here. (A head that claims to be tied is the exception: it is
compared with the embedding.) Knows no byte layout and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from edgellm.edgefile import tensor_bytes
from edgellm.errors import FormatError, InvalidArgumentError, UnsupportedError

from . import archs
from .checkpoint import READABLE_DTYPES, Checkpoint, check_names, matrix_shape, same_tensor
from .fold import PRODUCER, Folds, consumers, producer_of
from .layout import KEY_BALANCE_ROLES
from .quant.methods import Method
from .quant.tiles import F32Array
from .recipe import (
    AUTO_ACT,
    EMBED_ROLE,
    Recipe,
    default_recipe,
    keeping_rules,
    preset,
    vector_rules,
)
from .report import ConvertPlan, PlannedTensor
from .rotation import ROTATED_MATRICES, ValueRotation
from .spec import ModelSpec
from .views import define_view

EXPERTS = "_exps"  # roles of stacked experts end so
TIED_METHODS = ("rtn", "importance", "gptq")  # of an embedding that is the head


@dataclass(frozen=True)
class Options:
    """What the caller chose; see convert(). A recipe stands alone: the other choices are its."""

    format: str | None
    embed_format: str | None
    head_format: str | None
    act: str | None
    recipe: Recipe | None = None
    calibrated: bool = False  # there is calibration text

    def to_recipe(self, tied_head: bool) -> Recipe:
        named = (self.format, self.embed_format, self.head_format, self.act)
        if self.recipe is not None:
            if any(choice is not None for choice in named):
                raise InvalidArgumentError(
                    "a recipe chooses formats and activations itself; leave format, embed_format, "
                    "head_format and act out",
                    code="invalid_argument",
                )
            return self.recipe
        recipe = default_recipe if self.format is None else partial(preset, self.format)
        return recipe(
            embed_format=self.embed_format,
            head_format=self.head_format,
            act=self.act,
            tied_head=tied_head,
            calibrated=self.calibrated,
        )


class Job:
    """An opened checkpoint with everything decided and nothing written. config: of its language
    model; tables: its rotary frequencies, by their names in the file."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        self.checkpoint = checkpoint
        self.arch = checkpoint.arch
        self.config = archs.language_config(checkpoint.config)
        self.warnings = list(checkpoint.warnings)
        spec = self.arch.to_spec(self.config, checkpoint.optional_json("generation_config.json"))
        self.spec = self._settle_head(spec)
        if self.spec.headless:
            self.warnings.append("saved without its head: the file makes embeddings, no text")
        self.recipe = options.to_recipe(self.spec.tied_head)
        sources = self._sources(self.spec)
        self._keep_packed(sources, options)
        if checkpoint.has_weights:
            self._check_stored(sources)
            self._define_views(sources)
        else:
            self.warnings.append("no weights there: planned from config.json alone")
        self.tables = self.arch.tables(self.config)
        self.folds = Folds(self.spec)
        self.planned = self._plan(sources)
        self.rotation = self._value_rotation()
        self._check_calibration(options.calibrated)
        self._warn_of_drift()
        unread = self.arch.unread_keys(self.config)
        if unread:
            self.warnings.append(f"config.json keys without effect: {', '.join(unread)}")

    def _sources(self, spec: ModelSpec) -> list[archs.TensorSource]:
        return self.arch.tensors(spec, self.config, self.checkpoint.tensors)

    def _check_stored(self, sources: list[archs.TensorSource]) -> None:
        tensors = self.checkpoint.tensors
        left_out = self.arch.left_out(tensors)
        check_names(
            tensors,
            [name for item in sources for name in item.stored],
            left_out | self.arch.ignorable(self.spec, tensors),
            self.checkpoint.directory,
        )
        if left_out:
            n_bytes = sum(tensors[name].n_bytes for name in left_out)
            parts = sorted({name.removeprefix("model.").split(".")[0] for name in left_out})
            self.warnings.append(
                f"only the language model is converted; left out are {len(left_out)} tensors "
                f"({n_bytes / 2**20:.1f} MiB) of {', '.join(parts)}"
            )
        for item in sources:
            self._check_tensors(item)

    def _define_views(self, sources: list[archs.TensorSource]) -> None:
        for item in sources:
            if not item.view.is_plain:
                define_view(self.checkpoint, item.source, item.shape, item.view)

    def _keep_packed(self, sources: list[archs.TensorSource], options: Options) -> None:
        """What the checkpoint holds in fewer bits goes to the format that is nearest to them, the
        very same numbers where there is one for them, unless another format was asked for."""
        if not self.checkpoint.has_weights:
            return
        matrices = [item for item in sources if len(item.shape) == 2]
        best = {
            item.name: format
            for item in matrices
            if (format := self.checkpoint.best_format(item.stored, whole=item.view.is_plain))
        }
        if best and options.recipe is None and options.format is None:
            roles = {item.name: item.role for item in matrices}
            rules = keeping_rules(best, roles, options.act)
            self.recipe = replace(self.recipe, rules=(*vector_rules(), *rules, *self.recipe.rules))
        rounded = [item for item in matrices if self._is_rounded_again(item)]
        if rounded:
            self.warnings.append(
                f"{len(rounded)} matrices that the checkpoint holds quantized are rounded again "
                f"('{rounded[0].name}' is the first)"
            )

    def _is_rounded_again(self, item: archs.TensorSource) -> bool:
        exact = self.checkpoint.exact_format(item.stored)
        kept = item.view.is_plain and self.recipe.choose(item.role, item.name).format == exact
        return exact is not None and not kept

    def _settle_head(self, spec: ModelSpec) -> ModelSpec:
        """A tied model may store a head as well; like transformers, untie it if it differs. So may
        one whose class has none."""
        if not (spec.tied_head or spec.headless) or not self.checkpoint.has_weights:
            return spec
        with_head = replace(spec, tied_head=False, headless=False)
        heads = {item.source for item in self._sources(with_head)}
        heads -= {item.source for item in self._sources(spec)}
        stored = heads & set(self.checkpoint.tensors)
        if not stored:
            return spec
        if spec.headless:
            return with_head
        head = stored.pop()
        embedding = self._sources(spec)[0].source
        if same_tensor(self.checkpoint, head, embedding):
            return spec
        self.warnings.append(
            f"config.json ties the head to the embedding, but '{head}' differs from "
            f"'{embedding}': the head is kept"
        )
        return with_head

    def _check_tensors(self, item: archs.TensorSource) -> None:
        for name, shape in item.stored.items():
            info = self.checkpoint.tensors[name]
            if info.shape != shape:
                raise FormatError(
                    f"{info.path}: tensor '{name}' is {list(info.shape)}, config.json asks for "
                    f"{list(shape)}",
                    code="tensor_shape",
                )
            if info.dtype not in READABLE_DTYPES:
                raise UnsupportedError(
                    f"{info.path}: tensor '{name}' is {info.dtype}; only "
                    f"{', '.join(READABLE_DTYPES)} can be converted",
                    code="tensor_dtype",
                )

    def _plan(self, sources: list[archs.TensorSource]) -> tuple[PlannedTensor, ...]:
        """Execution order; the rotary frequencies come right before the layers."""
        planned = [self._planned(item.name, item.role, item.shape, item.source) for item in sources]
        tables = [
            self._planned(name, name, table.shape, None) for name, table in self.tables.items()
        ]
        n_before = next(i for i, item in enumerate(planned) if item.name.startswith("layers."))
        return (*planned[:n_before], *tables, *planned[n_before:])

    def _check_calibration(self, calibrated: bool) -> None:
        methods = {item.name: self.method(item) for item in self.planned}
        embedding = methods[EMBED_ROLE].name
        if embedding not in (TIED_METHODS if self.spec.tied_head else ("rtn",)):
            why = (
                f"is the head, too; its method must be one of {', '.join(TIED_METHODS)}"
                if self.spec.tied_head
                else "is looked up, not multiplied; its method must be 'rtn'"
            )
            raise InvalidArgumentError(
                f"recipe '{self.recipe.name}': the embedding {why}, not '{embedding}'",
                code="invalid_argument",
            )
        self._check_tuned(methods)
        self._check_scales()
        needing = {name: method.name for name, method in methods.items() if method.needs_stats}
        for item in self.planned:
            if self.scale(item) is not None:
                needing.setdefault(item.name, f"scale = '{self.scale(item)}'")
            if item.act == AUTO_ACT:
                self._check_auto_act(item)
                needing.setdefault(item.name, f"act = '{AUTO_ACT}'")
        if needing and not calibrated:
            name, how = next(iter(needing.items()))
            raise InvalidArgumentError(
                f"recipe '{self.recipe.name}': '{name}' is to be converted by {how}, which needs "
                "calibration text: --calibration FILE",
                code="invalid_argument",
            )
        if calibrated and not needing:
            raise InvalidArgumentError(
                f"recipe '{self.recipe.name}' uses no calibration text; leave it out",
                code="invalid_argument",
            )

    def _value_rotation(self) -> ValueRotation:
        """In the layers whose matrices are not kept as the checkpoint holds them, bit for bit."""
        if not self.recipe.rotate_values:
            return ValueRotation(self.spec)
        kept = {
            int(item.name.split(".")[1])
            for item in self.planned
            if item.role in ROTATED_MATRICES and self._is_kept(item)
        }
        if kept:
            self.warnings.append(
                f"values of {len(kept)} layers are not rotated: their attn_v or attn_o keeps the "
                f"numbers of the checkpoint (layer {min(kept)} is the first)"
            )
        return ValueRotation(self.spec, set(range(len(self.spec.layers))) - kept)

    def _is_kept(self, item: PlannedTensor) -> bool:
        on_grid = self.method(item).name == "grid"
        return on_grid or item.source in self.checkpoint.strips_in(item.format)

    def _warn_of_drift(self) -> None:
        changed = [
            item.name
            for item in self.planned
            if self.method(item) != self.recipe.choose(item.role, item.name).method
        ]
        if changed:
            self.warnings.append(
                f"{len(changed)} matrices of experts take gptq, not gptaq: the original model may "
                f"give an expert other tokens ('{changed[0]}' is the first)"
            )

    def _check_tuned(self, methods: dict[str, Method]) -> None:
        """Matrices of one layer are tuned by one descent."""
        descents: dict[str, tuple[str, tuple[int, int, float]]] = {}
        for name, method in methods.items():
            if not method.tunes_layers:
                continue
            layer = name.rpartition(".")[0]
            if not layer.startswith("layers."):
                raise InvalidArgumentError(
                    f"recipe '{self.recipe.name}': '{name}' is in no layer; its method cannot be "
                    f"'{method.name}'",
                    code="invalid_argument",
                )
            descent = (method.n_steps, method.batch_windows, method.reach)
            other, first = descents.setdefault(layer, (name, descent))
            if descent != first:
                raise InvalidArgumentError(
                    f"recipe '{self.recipe.name}': '{other}' and '{name}' are tuned together; give "
                    "them the same n_steps, batch_windows and reach",
                    code="invalid_argument",
                )

    def _check_scales(self) -> None:
        """What reads one input is scaled one way, and only what has an operator before it."""
        for item in self.planned:
            scale = self.scale(item)
            prefix = item.name.rpartition(".")[0]
            producer = producer_of(self.spec, item.name)
            if scale is not None and producer is None:
                raise InvalidArgumentError(
                    f"recipe '{self.recipe.name}': nothing before '{item.name}' can take its "
                    "scales; leave 'scale' out there",
                    code="invalid_argument",
                )
            if producer is None or scale is None:
                continue
            roles = consumers(self.spec.layers[int(item.name.split(".")[1])])[producer]
            readers = {f"{prefix}.{role}" for role in roles}
            for other in self.planned:
                if other.name in readers and self.scale(other) != scale:
                    raise InvalidArgumentError(
                        f"recipe '{self.recipe.name}': '{item.name}' and '{other.name}' read the "
                        "same input; give them the same 'scale'",
                        code="invalid_argument",
                    )

    def _check_auto_act(self, item: PlannedTensor) -> None:
        if item.role not in PRODUCER:
            raise InvalidArgumentError(
                f"recipe '{self.recipe.name}': act '{AUTO_ACT}' is for the layers' matrices; "
                f"choose one for '{item.name}'",
                code="invalid_argument",
            )

    def settle_act(self, name: str, act: str) -> None:
        """What act "auto" of a planned tensor came to."""
        self.planned = tuple(
            replace(item, act=act) if item.name == name else item for item in self.planned
        )

    def settle_keys(self, rotate: bool, balances: Mapping[str, F32Array]) -> None:
        """Whether the runtime rotates queries and keys, and what it balances those of some layers
        with, by tensor name."""
        layers = []
        for index, layer in enumerate(self.spec.layers):
            balance = f"layers.{index}.{KEY_BALANCE_ROLES[0]}" in balances
            has_keys = layer.n_kv_heads > 0
            layers.append(replace(layer, rotate_keys=rotate and has_keys, balance_keys=balance))
        self.spec = replace(self.spec, layers=tuple(layers))
        self.tables = {**self.tables, **balances}
        planned: list[PlannedTensor] = []
        for item in self.planned:
            if item.role == "attn_o":
                for role in KEY_BALANCE_ROLES:
                    name = item.name.removesuffix("attn_o") + role
                    if name in balances:
                        planned.append(self._planned(name, role, balances[name].shape, None))
            planned.append(item)
        self.planned = tuple(planned)

    def act_kl(self, item: PlannedTensor) -> float:
        """How much act "auto" may cost a planned tensor."""
        return self.recipe.choose(item.role, item.name).act_kl

    def scale(self, item: PlannedTensor) -> str | None:
        """How the input channels of a planned tensor are scaled, if they are."""
        return self.recipe.choose(item.role, item.name).scale

    def read_rows(self, item: PlannedTensor, row0: int, n_rows: int) -> F32Array:
        """Rows of a planned tensor as float32, with what was folded into it so far."""
        return self.folds.apply(item.name, self.unscaled_rows(item, row0, n_rows), row0)

    def unscaled_rows(self, item: PlannedTensor, row0: int, n_rows: int) -> F32Array:
        """The same before channel scales: the checkpoint's, values rotated."""
        assert item.source is not None
        first, n = self.rotation.rows_to_read(item.name, row0, n_rows)
        rows = self.rotation.apply(item.name, self.checkpoint.read_rows(item.source, first, n))
        return rows[row0 - first : row0 - first + n_rows]

    def method(self, item: PlannedTensor) -> Method:
        """How the codes of a planned tensor are chosen. Which tokens an expert gets need not be the
        same in the original model, so there is no drift of its inputs to make up for."""
        method = self.recipe.choose(item.role, item.name).method
        return method.without_drift if item.role.endswith(EXPERTS) else method

    def _planned(
        self, name: str, role: str, shape: tuple[int, ...], source: str | None
    ) -> PlannedTensor:
        rule = self.recipe.choose(role, name)
        n_bytes = tensor_bytes(rule.format, *matrix_shape(shape))
        return PlannedTensor(name, role, rule.format, rule.act, shape, source, n_bytes)

    def as_plan(self) -> ConvertPlan:
        return ConvertPlan(
            self.checkpoint.directory,
            self.spec,
            self.recipe.name,
            self.planned,
            tuple(self.warnings),
        )
