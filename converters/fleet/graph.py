"""From a manifest to the steps of its build: models x devices x recipes, what they share once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgellm.errors import EdgeError

from ..compress.measure import VERSION as MEASURE_VERSION
from ..compress.recipe import ChosenStep
from ..compress.step import CHECKPOINT
from ..compress.store import digest_of
from ..extras import SourceDigests
from ..pipeline import plan_conversion
from ..sources import open_checkpoint
from .cost import Cost, cost_of, cost_of_step
from .manifest import FleetDevice, FleetManifest, FleetModel, FleetRecipe
from .node import DESCRIBE, MEASURE, Node, environment, stamp_of

DESCRIBE_VERSION = 1
ALL_TEXTS = ("train", "valid", "calibration")


@dataclass(frozen=True)
class Product:
    """A model by a recipe: digests of the steps that make, describe and measure its file. measure:
    "" where there is no text to measure on."""

    model: str
    recipe: str
    make: str
    describe: str
    measure: str

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.make, self.describe, self.measure)))


@dataclass(frozen=True)
class Graph:
    """nodes: by digest, every step after those that it needs. products: by model and recipe.
    failures: models that cannot even be planned, and why. n_without_sharing: steps that there would
    be if every device had its own."""

    nodes: Mapping[str, Node]
    products: Mapping[tuple[str, str], Product]
    failures: Mapping[str, EdgeError]
    n_without_sharing: int

    def needs(self, digest: str) -> tuple[str, ...]:
        """Steps without which this one cannot be done."""
        return self.nodes[digest].inputs


@dataclass
class _Source:
    """A model that is planned."""

    path: Path
    digest: str
    stamps: dict[str, Any]
    n_weights: int


@dataclass
class _Builder:
    manifest: FleetManifest
    nodes: dict[str, Node] = field(default_factory=dict)
    leaders: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files = vars(self.manifest.texts.files)
        self._texts = {name: [digest_of(path) for path in files[name]] for name in ALL_TEXTS}
        self._paths = {name: [str(p.absolute()) for p in files[name]] for name in ALL_TEXTS}
        self._stamps = {
            name: {str(p.absolute()): stamp_of(p) for p in files[name]} for name in ALL_TEXTS
        }
        self._environment = environment()

    def product(self, model: FleetModel, recipe: FleetRecipe, source: _Source) -> Product:
        name = f"{model.name}, {recipe.name}"
        inputs: tuple[str, ...] = ()
        checkpoint = ""
        for chosen, table, n_gpus in zip(recipe.steps, recipe.tables, recipe.gpus, strict=True):
            node = self._step(name, chosen, table, source, inputs, checkpoint, n_gpus)
            inputs = (*inputs, node.digest)
            if chosen.step.gives == CHECKPOINT:
                checkpoint = node.digest
        make = inputs[-1]
        describe = self._besides(DESCRIBE, name, make, source, {"version": DESCRIBE_VERSION}, ())
        measure = ""
        texts = self.manifest.texts
        if texts.valid:
            windows = {"window_tokens": texts.window_tokens, "valid_windows": texts.valid_windows}
            about = {"version": MEASURE_VERSION, "source": source.digest, **windows}
            measure = self._besides(MEASURE, name, make, source, about, ("valid",), windows)
        return Product(model.name, recipe.name, make, describe, measure)

    def _step(
        self,
        name: str,
        chosen: ChosenStep,
        table: dict[str, Any],
        source: _Source,
        inputs: tuple[str, ...],
        checkpoint: str,
        n_gpus: int,
    ) -> Node:
        reads = chosen.step.reads
        about = {
            "do": chosen.name,
            "version": chosen.step.version,
            "settings": chosen.digest(digest_of),
            "source": source.digest,
            "inputs": list(inputs),
            "texts": {text: self._texts[text] for text in reads},
            "threads": self.manifest.threads,
            "environment": self._environment,
        }
        calibrated = bool(self.manifest.texts.calibration)
        shared = ""
        if chosen.name == "quantize" and calibrated:
            key = [source.digest, list(inputs), about["texts"], self._environment]
            shared = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        node = Node(
            do=chosen.name,
            label=f"{name}: {chosen.name}",
            about=about,
            settings=table,
            base=str(self.manifest.base.absolute()),
            source=str(source.path.absolute()),
            inputs=inputs,
            checkpoint=checkpoint,
            texts={text: self._paths[text] for text in reads},
            stamps=self._stamps_of(source, reads),
            shared=shared,
            n_weights=source.n_weights,
            gpus=n_gpus,
        )
        cost = cost_of_step(chosen, source.n_weights, calibrated=calibrated)
        return self._added(node, cost)

    def _besides(
        self,
        do: str,
        name: str,
        make: str,
        source: _Source,
        about: dict[str, Any],
        reads: tuple[str, ...],
        settings: dict[str, Any] | None = None,
    ) -> str:
        about = {
            **about,
            "do": do,
            "inputs": [make],
            "texts": {text: self._texts[text] for text in reads},
            "threads": self.manifest.threads,
            "environment": self._environment,
        }
        node = Node(
            do=do,
            label=f"{name}: {do}",
            about=about,
            settings=settings or {},
            source=str(source.path.absolute()),
            inputs=(make,),
            texts={text: self._paths[text] for text in reads},
            stamps=self._stamps_of(source, reads) if reads else {},
            n_weights=source.n_weights,
        )
        texts = self.manifest.texts
        cost = cost_of(do, source.n_weights, texts.window_tokens * texts.valid_windows)
        return self._added(node, cost).digest

    def _added(self, node: Node, cost: Cost) -> Node:
        """The step of this digest: the one that is there, named after who asked first."""
        node = replace(node, seconds=cost.seconds, memory_bytes=cost.memory_bytes)
        known = self.nodes.get(node.digest)
        if known is not None:
            if node.gpus > known.gpus:
                known = self.nodes[node.digest] = replace(known, gpus=node.gpus)
            return known
        if node.shared:
            leader = self.leaders.setdefault(node.shared, node.digest)
            if leader != node.digest:
                node = replace(node, after=(leader,))
        self.nodes[node.digest] = node
        return node

    def _stamps_of(self, source: _Source, reads: tuple[str, ...]) -> dict[str, Any]:
        return source.stamps | {key: at for text in reads for key, at in self._stamps[text].items()}


def plan_graph(manifest: FleetManifest) -> Graph:
    """Hashes every source and text. A model that cannot be read is a failure of its own;
    FormatError for texts that cannot."""
    builder = _Builder(manifest)
    products: dict[tuple[str, str], Product] = {}
    failures: dict[str, EdgeError] = {}
    n_without = 0
    for model in manifest.models:
        wanted = _wanted(manifest, model)
        if not wanted:
            continue
        try:
            source = _source(model)
        except EdgeError as error:
            message = f"model '{model.name}': {error}"
            failures[model.name] = type(error)(message, code=error.code)
            continue
        for recipe, n_devices in wanted:
            product = builder.product(model, recipe, source)
            products[model.name, recipe.name] = product
            n_without += n_devices * (len(recipe.steps) + len(product.digests) - 1)
    return Graph(builder.nodes, products, failures, n_without)


def usable(device: FleetDevice, recipe: FleetRecipe) -> bool:
    """Whether a device may be able to run what a recipe gives, as far as its table says; of others
    their files show it."""
    format = getattr(recipe.steps[-1].options, "format", "")
    return not device.formats or not format or format in device.formats


def _wanted(manifest: FleetManifest, model: FleetModel) -> list[tuple[FleetRecipe, int]]:
    """Recipes that some device wants of a model, and how many do."""
    devices = [device for device in manifest.devices if model in manifest.models_of(device)]
    counted = [
        (
            recipe,
            sum(r is recipe and usable(d, r) for d in devices for r in manifest.recipes_of(d)),
        )
        for recipe in manifest.recipes
    ]
    return [(recipe, n) for recipe, n in counted if n]


def _source(model: FleetModel) -> _Source:
    n_weights = plan_conversion(model.source).n_weights
    with open_checkpoint(model.source) as checkpoint, SourceDigests(checkpoint) as digests:
        paths = list(digests.paths.values())
        text = json.dumps(digests.result(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    stamps = {str(path.absolute()): stamp_of(path) for path in paths}
    return _Source(model.source, digest, stamps, n_weights)
