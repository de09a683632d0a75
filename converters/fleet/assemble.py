"""From steps that are done to an index and the files that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgellm.edgefile import read_header
from edgellm.errors import FormatError
from edgellm.fleet.index import FileRef, FleetIndex, Quality, Release, Variant, parse_index

from .artefacts import INDEX, Content, content_of
from .fit import Fit, fit_of
from .graph import Graph, Product, usable
from .manifest import FleetDevice, FleetManifest, FleetModel, FleetRecipe
from .report import UNFIT, VariantReport
from .schedule import DONE, FAILED, Outcome

_KEPT_RELEASES = 2  # of a model: the new one, and the one that other devices go on to get


@dataclass
class Assembled:
    """index: None where no device gets anything."""

    index: FleetIndex | None = None
    contents: dict[str, Content] = field(default_factory=dict)
    variants: list[VariantReport] = field(default_factory=list)


def assemble(manifest: FleetManifest, graph: Graph, outcomes: Mapping[str, Outcome]) -> Assembled:
    """FormatError where what the manifest extends cannot be read."""
    return _Assembly(manifest, graph, outcomes).run()


class _Assembly:
    def __init__(
        self, manifest: FleetManifest, graph: Graph, outcomes: Mapping[str, Outcome]
    ) -> None:
        self._manifest, self._graph, self._outcomes = manifest, graph, outcomes
        self._made = Assembled()
        self._earlier = _read_earlier(manifest)
        self._parts: dict[str, Variant] = {}

    def run(self) -> Assembled:
        devices: dict[str, dict[str, tuple[Release, ...]]] = {}
        for device in self._manifest.devices:
            models: dict[str, tuple[Release, ...]] = {}
            for model in self._manifest.models_of(device):
                releases = self._releases(device, model)
                if releases:
                    models[model.name] = releases
            if models:
                devices[device.name] = models
        if devices:
            manifest = self._manifest
            self._made.index = FleetIndex(
                manifest.name, manifest.sequence, manifest.expires, self._revoked(), devices
            )
        return self._made

    def _revoked(self) -> tuple[str, ...]:
        return () if self._earlier is None else self._earlier.revoked

    def _releases(self, device: FleetDevice, model: FleetModel) -> tuple[Release, ...]:
        variants: list[Variant] = []
        for recipe in self._manifest.recipes_of(device):
            variant = self._variant(device, model, recipe, is_first=not variants)
            if variant is not None:
                variants.append(variant)
        manifest = self._manifest
        releases = []
        if variants:
            releases.append(Release(manifest.version, manifest.canary_percent, tuple(variants)))
        if self._earlier is not None and model.name in self._earlier.devices.get(device.name, {}):
            before = self._earlier.releases(device.name, model.name)
            releases += [one for one in before if one.version != manifest.version]
        if manifest.canary_percent == 100:
            return tuple(releases[:_KEPT_RELEASES])
        # Whoever is no canary gets the version before, whatever share of devices it had then.
        kept = releases[:1] + [replace(one, canary_percent=100) for one in releases[1:2]]
        return tuple(kept)

    def _variant(
        self, device: FleetDevice, model: FleetModel, recipe: FleetRecipe, *, is_first: bool
    ) -> Variant | None:
        row = VariantReport(device.name, model.name, recipe.name, DONE)
        failure = self._graph.failures.get(model.name)
        if failure is not None:
            self._told(replace(row, state=FAILED, reason=str(failure)))
            return None
        if not usable(device, recipe):
            reason = "the recipe's format is none of the device's"
            self._told(replace(row, state=UNFIT, reason=reason))
            return None
        product = self._graph.products[model.name, recipe.name]
        for digest in product.digests:
            outcome = self._outcomes[digest]
            if outcome.state != DONE:
                self._told(replace(row, state=outcome.state, reason=str(outcome.error)))
                return None
        made, described = self._outcomes[product.make], self._outcomes[product.describe]
        assert made.path is not None
        assert described.figures is not None
        fit = fit_of(device, made.path, described.figures)
        quality = self._quality(product)
        row = replace(
            row,
            n_bytes=described.figures["n_bytes"],
            memory_bytes=fit.memory_bytes,
            tokens_per_s=fit.tokens_per_s,
            kl=None if quality is None else quality.kl,
            top1=None if quality is None else quality.top1,
            sha256=described.figures["sha256"],
        )
        if fit.reason:
            self._told(replace(row, state=UNFIT, reason=fit.reason))
            return None
        self._told(replace(row, is_first=is_first))
        return self._shared_part(product, recipe, quality, device, fit)

    def _told(self, row: VariantReport) -> None:
        self._made.variants.append(row)

    def _shared_part(
        self,
        product: Product,
        recipe: FleetRecipe,
        quality: Quality | None,
        device: FleetDevice,
        fit: Fit,
    ) -> Variant:
        """The variant: its files are the same for all devices."""
        variant = self._parts.get(product.make)
        if variant is None:
            variant = self._parts[product.make] = self._part(product, recipe, quality)
        return replace(
            variant,
            recipe=recipe.name,
            memory_bytes=fit.memory_bytes,
            context=fit.context,
            kv=device.kv,
            tokens_per_s=fit.tokens_per_s,
        )

    def _part(self, product: Product, recipe: FleetRecipe, quality: Quality | None) -> Variant:
        made, described = self._outcomes[product.make], self._outcomes[product.describe]
        assert made.path is not None
        assert described.path is not None
        assert described.figures is not None
        figures = described.figures
        stem = f"models/{product.model}-{recipe.name}-{figures['sha256'][:12]}"
        file = Content(FileRef(f"{stem}.edge", figures["sha256"], figures["n_bytes"]), made.path)
        chunks = content_of(f"{stem}.chunks", described.path.read_bytes())
        provenance = content_of(f"{stem}.json", self._provenance(product, recipe))
        for one in (file, chunks, provenance):
            self._made.contents[one.ref.sha256] = one
        return Variant(
            recipe.name,
            file.ref,
            figures["header_sha256"],
            chunks.ref,
            provenance.ref,
            None,
            0,
            1,
            "K8V8",
            None,
            quality,
        )

    def _quality(self, product: Product) -> Quality | None:
        if not product.measure:
            return None
        figures = self._outcomes[product.measure].figures
        assert figures is not None
        return Quality(figures["kl"], figures["top1"], figures["loss_after"])

    def _provenance(self, product: Product, recipe: FleetRecipe) -> bytes:
        """What the file was made of, by what, and how good it is; nothing of when or where."""
        nodes = self._graph.nodes
        make = nodes[product.make]
        steps = [nodes[digest] for digest in (*make.inputs, product.make)]
        path = self._outcomes[product.make].path
        assert path is not None
        value: dict[str, Any] = {
            "format": "edgellm-provenance-1",
            "subject": self._outcomes[product.describe].figures,
            "model": product.model,
            "recipe": {"name": recipe.name, "steps": list(recipe.tables)},
            "inputs": read_header(path).source,
            "steps": [{"digest": node.digest, **node.about} for node in steps],
            "step_figures": [self._outcomes[node.digest].figures for node in steps],
            "quality": self._outcomes[product.measure].figures if product.measure else None,
            "warnings": list(self._outcomes[product.make].warnings),
        }
        return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode("ascii")


def _read_earlier(manifest: FleetManifest) -> FleetIndex | None:
    """The index of what the manifest extends."""
    if manifest.extends is None:
        return None
    path = manifest.extends / INDEX
    try:
        index = parse_index(path.read_bytes(), str(path))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}", "file_unreadable") from error
    if index.sequence >= manifest.sequence:
        message = f"{path}: has sequence {index.sequence}; the manifest's must be larger"
        raise FormatError(message, code="fleet_index")
    return index


def earlier_contents(manifest: FleetManifest, index: FleetIndex) -> list[Content]:
    """The files of earlier releases, where they lie."""
    if manifest.extends is None:
        return []
    folder: Path = manifest.extends
    return [Content(ref, folder / ref.name) for ref in index.files()]
