"""A bundle as a STAC item with the machine-learning-model extension, 1.5.

Fields: https://github.com/stac-extensions/mlm. Scaling is inside the model, so an input is described by its bands' own scale,
offset, mean and std, and has no ``value_scaling`` of its own.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.reports.cards.subject import UNKNOWN, Array, Subject
from rsedge.reports.cards.tasks import words_of

ITEM = "stac-item.json"
EXTENSIONS = {
    "mlm": "https://stac-extensions.github.io/mlm/v1.5.1/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
}
AXES = {"T": "time", "C": "bands", "H": "height", "W": "width"}
MEDIA = {".xml": "application/xml", ".onnx": "application/octet-stream; framework=onnx", ".npz": "application/zip"}
SHA2_256 = "1220"
"""Multihash: SHA-256, 32 bytes."""
OPEN_RANGE = {"datetime": None, "start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}


def stac_item(subject: Subject) -> dict[str, Any]:
    """The item. It has no footprint: a model is not bound to the places of its data."""
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS.values()),
        "id": _identifier(subject.name),
        "geometry": None,
        "properties": _properties(subject),
        "links": [],
        "assets": _assets(subject),
    }


def _properties(subject: Subject) -> dict[str, Any]:
    manifest, target = subject.manifest, subject.target
    when: dict[str, Any] = {"datetime": manifest.created} if manifest.created else dict(OPEN_RANGE)
    tasks = list(words_of(manifest.task).mlm)
    known = {
        "mlm:framework_version": _version(subject),
        "mlm:memory_size": None if subject.measured is None else subject.measured.peak_rss_bytes,
        "mlm:total_parameters": None if target is None else target.params,
        "mlm:pretrained_source": manifest.teacher and f"compressed from the teacher {manifest.teacher}",
    }
    return {
        **when,
        "title": subject.name,
        "description": _description(subject),
        "license": "other",
        "bands": [_band(band, manifest.input_spec) for band in manifest.input_spec.bands],
        "mlm:name": _identifier(subject.name),
        "mlm:architecture": subject.student or UNKNOWN,
        "mlm:tasks": tasks,
        "mlm:framework": manifest.target.backend.title,
        **{name: value for name, value in known.items() if value is not None},
        "mlm:pretrained": True,
        "mlm:accelerator_summary": f"{manifest.target.device}, by {manifest.target.backend.title}",
        "mlm:input": [_input(subject, one) for one in subject.inputs],
        "mlm:output": [_output(subject, one, tasks) for one in subject.outputs],
        "rsedge:verdict": subject.verdict,
        "rsedge:latency": subject.latency,
        "rsedge:metrics": {one.name: one.text for one in subject.figures},
        "rsedge:limits": subject.limits,
        "rsedge:signature": subject.signature,
        "rsedge:manifest_sha256": subject.manifest_sha256,
    }


def _description(subject: Subject) -> str:
    return (
        f"A {subject.manifest.task} model for {subject.manifest.target.device}, compressed by rsedge. Latency: {subject.latency}. "
        f"Verdict of its gates: {subject.verdict}. Licence of the weights: not stated."
    )


def _identifier(name: str) -> str:
    """A name as the extension's pattern asks for it: a letter first, then letters, digits, ``_.-``, no mark at the end."""
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")
    return text if text[:1].isalpha() else f"model-{text}"


def _version(subject: Subject) -> str | None:
    """Of the runtime, where it is known as three numbers."""
    tool = subject.manifest.tool_versions.get(subject.manifest.target.runtime)
    written = tool or (subject.measured.runtime_version if subject.measured else "")
    found = re.match(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", written)
    return None if found is None else found[0]


def _band(band: BandSpec, spec: InputSpec) -> dict[str, Any]:
    known = {
        "description": band.sensor and f"of {band.sensor}",
        "gsd": band.gsd_m,
        "nodata": band.nodata,
        "eo:center_wavelength": None if band.wavelength_nm is None else band.wavelength_nm / 1000,
        "rsedge:polarisation": band.polarisation,
    }
    return {
        "name": band.name,
        "data_type": spec.dtype,
        "raster:scale": band.scale,
        "raster:offset": band.offset,
        "rsedge:quantity": spec.quantity,
        "rsedge:normalisation": {
            "kind": spec.normalisation,
            "mean": band.mean,
            "std": band.std,
            "stretch": band.stretch,
        },
        **{name: value for name, value in known.items() if value is not None},
    }


def _input(subject: Subject, one: Array) -> dict[str, Any]:
    spec = subject.manifest.input_spec
    banded = subject.manifest.parts is None
    axes = ["batch", *(AXES[axis] for axis in spec.layout)] if banded else _numbered(len(one.shape))
    about = "raw digital numbers; scale, offset, normalisation and the mask of missing pixels are in the model"
    return {
        "name": one.name,
        "bands": list(spec.band_names) if banded else [],
        "input": {"shape": list(one.shape), "dim_order": axes, "data_type": one.dtype},
        "description": about if banded else "what one sample of the whole holds",
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(subject: Subject, one: Array, tasks: list[str]) -> dict[str, Any]:
    axes = {"logits": words_of(subject.manifest.task).axes, "valid": ("batch", "height", "width")}.get(one.name, ())
    named = list(axes) if len(axes) == len(one.shape) else _numbered(len(one.shape))
    result: dict[str, Any] = {
        "name": one.name,
        "tasks": tasks,
        "result": {"shape": list(one.shape), "dim_order": named, "data_type": one.dtype},
        "post_processing_function": None,
    }
    if one.name == "logits" and "class" in named:
        result["classification:classes"] = [
            {"value": number, "name": re.sub(r"[^A-Za-z0-9_-]+", "-", name), "description": name}
            for number, name in enumerate(subject.manifest.classes)
        ]
    return result


def _numbered(axes: int) -> list[str]:
    """Names of axes that have no name of their own; the extension takes letters, no digits."""
    return ["batch", *(f"axis-{'abcdefgh'[number]}" for number in range(axes - 1))]


def _assets(subject: Subject) -> dict[str, Any]:
    """The bundle's files; of a ``.zip`` that alone, which is what lies there, with the files that it holds."""
    if (archive := subject.archive) is None:
        return {name: _asset(subject, name) for name in subject.manifest.files}
    held = {name: {"bytes": e.bytes, "sha256": e.sha256} for name, e in subject.manifest.files.items()}
    return {
        "bundle": {
            "href": archive.href,
            "title": f"the bundle, with {subject.manifest.model_file} in it",
            "type": "application/zip",
            "roles": ["mlm:model"],
            "file:size": archive.bytes,
            "file:checksum": f"{SHA2_256}{archive.sha256}",
            **_of_model(subject),
            "rsedge:files": held,
        }
    }


def _of_model(subject: Subject) -> dict[str, Any]:
    # The core lets an item describe bands only where an asset names them.
    bands = [{"name": name} for name in subject.manifest.input_spec.band_names]
    return {"mlm:artifact_type": subject.manifest.target.backend.name, "bands": bands}


def _asset(subject: Subject, name: str) -> dict[str, Any]:
    manifest, entry = subject.manifest, subject.manifest.files[name]
    model = name == manifest.model_file or (manifest.parts is not None and name in manifest.parts.files.values())
    asset: dict[str, Any] = {
        "href": subject.places[name],
        "title": name,
        "type": MEDIA.get(PurePosixPath(name).suffix, "application/octet-stream"),
        "roles": ["mlm:model"] if model else ["metadata"] if name.endswith((".txt", ".json")) else ["data"],
        "file:size": entry.bytes,
        "file:checksum": f"{SHA2_256}{entry.sha256}",
    }
    return asset | _of_model(subject) if model else asset
