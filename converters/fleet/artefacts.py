"""A fleet on disk, as devices fetch it: a plain directory, or an OCI image layout.

Files are named by what they hold and come first, the index last, so that who reads meanwhile finds
the old fleet or the new one. Nothing depends on when or where it was written: the same build gives
the same bytes.

The OCI layout is of image-spec 1.1: a manifest with artifactType for every variant, an image index
for every device class, and the fleet's own index as an artefact of its own, which is what a device
reads and what is signed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import FormatError
from edgellm.fleet.index import FileRef, FleetIndex, Variant, index_bytes

from ..calibrate.work import make_folder
from ..compress.store import digest_of

INDEX, OCI_LAYOUT = "index.json", "oci-layout"
MODEL_TYPE = "application/vnd.edgellm.model.v1"
FLEET_TYPE = "application/vnd.edgellm.fleet.v1"
_IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
_IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_TYPES = {
    ".edge": "application/vnd.edgellm.edge",
    ".chunks": "application/vnd.edgellm.chunks",
    ".json": "application/vnd.edgellm.provenance.v1+json",
}


@dataclass(frozen=True)
class Content:
    """A file to be: of what bytes, or a copy of what."""

    ref: FileRef
    data: bytes | Path


def content_of(name: str, data: bytes) -> Content:
    return Content(FileRef(name, hashlib.sha256(data).hexdigest(), len(data)), data)


def write_artefacts(out: Path, layout: str, index: FleetIndex, contents: list[Content]) -> Path:
    """Writes what is missing, then the index; its path. FormatError where something cannot be
    written."""
    by_digest = {one.ref.sha256: one for one in contents}
    is_oci = layout == "oci"
    try:
        for ref in index.files():
            write_file(out / (_blob(ref.sha256) if is_oci else ref.name), by_digest[ref.sha256])
        if not is_oci:
            return _put_text(out / INDEX, index_bytes(index))
        for data in _oci_blobs(index):
            _put_text(out / _blob(hashlib.sha256(data).hexdigest()), data)
        _put_text(out / OCI_LAYOUT, _json({"imageLayoutVersion": "1.0.0"}))
        return _put_text(out / INDEX, _oci_index(index))
    except OSError as error:
        raise FormatError(f"{out}: cannot be written: {error}", "file_write_failed") from error


def _oci_blobs(index: FleetIndex) -> Iterator[bytes]:
    """Every document that the layout's own index leads to."""
    yield _EMPTY
    yield index_bytes(index)
    yield _fleet_manifest(index)
    for device, models in sorted(index.devices.items()):
        yield _device_index(index, device)
        for model, releases in sorted(models.items()):
            for release in releases:
                for variant in release.variants:
                    yield _model_manifest(model, release.version, variant)


def _oci_index(index: FleetIndex) -> bytes:
    fleet = _descriptor(_IMAGE_MANIFEST, _fleet_manifest(index), index.name)
    manifests = [{**fleet, "artifactType": FLEET_TYPE}]
    for device in sorted(index.devices):
        manifests.append(_descriptor(_IMAGE_INDEX, _device_index(index, device), device))
    return _json({"schemaVersion": 2, "mediaType": _IMAGE_INDEX, "manifests": manifests})


def _device_index(index: FleetIndex, device: str) -> bytes:
    manifests = []
    for model, releases in sorted(index.devices[device].items()):
        for release in releases:
            for variant in release.variants:
                data = _model_manifest(model, release.version, variant)
                name = f"{model}-{release.version}-{variant.recipe}"
                one = _descriptor(_IMAGE_MANIFEST, data, name)
                manifests.append({**one, "artifactType": MODEL_TYPE})
    return _json({"schemaVersion": 2, "mediaType": _IMAGE_INDEX, "manifests": manifests})


def _model_manifest(model: str, version: str, variant: Variant) -> bytes:
    # A signature names the file; it is not part of what it signs.
    layers = [_layer(one) for one in (variant.file, variant.chunks, variant.provenance)]
    annotations = {
        "org.opencontainers.image.title": model,
        "org.opencontainers.image.version": version,
        "org.edgellm.recipe": variant.recipe,
    }
    return _manifest(MODEL_TYPE, layers, annotations)


def _fleet_manifest(index: FleetIndex) -> bytes:
    data = index_bytes(index)
    layer = {"mediaType": FLEET_TYPE + "+json", **_digest(data)}
    return _manifest(FLEET_TYPE, [layer], {"org.opencontainers.image.title": index.name})


def _manifest(kind: str, layers: list[dict[str, Any]], annotations: dict[str, str]) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": _IMAGE_MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": _EMPTY_TYPE, **_digest(_EMPTY)},
        "layers": layers,
        "annotations": annotations,
    }
    return _json(value)


def _layer(ref: FileRef) -> dict[str, Any]:
    title = {"org.opencontainers.image.title": ref.name}
    media = _TYPES[Path(ref.name).suffix]
    size = {"digest": f"sha256:{ref.sha256}", "size": ref.n_bytes}
    return {"mediaType": media, **size, "annotations": title}


def _descriptor(media: str, data: bytes, name: str) -> dict[str, Any]:
    named = {"org.opencontainers.image.ref.name": name}
    return {"mediaType": media, **_digest(data), "annotations": named}


def _digest(data: bytes) -> dict[str, Any]:
    return {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _blob(sha256: str) -> str:
    return f"blobs/sha256/{sha256}"


def _put_text(path: Path, data: bytes) -> Path:
    write_file(path, content_of(path.name, data))
    return path


def write_file(path: Path, content: Content) -> None:
    """Unless it is there, and right. Whole or not at all."""
    ref = content.ref
    try:
        if path.stat().st_size == ref.n_bytes and digest_of(path) == ref.sha256:
            return
    except FileNotFoundError:
        make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if isinstance(content.data, bytes):
            temporary.write_bytes(content.data)
        else:
            shutil.copyfile(content.data, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
