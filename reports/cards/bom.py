"""A bundle as a CycloneDX 1.6 bill of materials for machine learning (ML-BOM).

The same records give the same bytes: serial number and time are the bundle's own.
"""

from __future__ import annotations

import importlib.metadata
import uuid
from collections.abc import Iterator
from typing import Any

from rsedge.data.metrics.verdict import gate_line
from rsedge.reports.cards.subject import UNKNOWN, DataSource, Subject

BOM = "bom.cdx.json"
SPDX = frozenset({
    "Apache-2.0", "MIT", "BSD-3-Clause", "GPL-3.0", "AGPL-3.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CDLA-Permissive-1.0",
})  # fmt: skip
"""Licences of teachers and data that SPDX names just so; others are given as they are recorded."""
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:rsedge:bundle")
J_PER_KWH = 3.6e6
MODEL, TEACHER = "model", "teacher"


def ml_bom(subject: Subject) -> dict[str, Any]:
    """The bill: the model with its card, its files, the teacher, the data, and the tools that made it."""
    sources = [_data(source) for source in subject.sources]
    tools = [_tool(name, version) for name, version in subject.manifest.tool_versions.items()]
    others = [*_teacher(subject), *sources, *_files(subject), *tools]
    when = {"timestamp": subject.manifest.created} if subject.manifest.created else {}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, subject.manifest_sha256)}",
        "version": 1,
        "metadata": {
            **when,
            "tools": {"components": [{"type": "application", "name": "rsedge", "version": subject.writer}]},
            "component": _model(subject),
        },
        "components": others,
        "dependencies": [
            {"ref": MODEL, "dependsOn": [one["bom-ref"] for one in others]},
            *({"ref": one["bom-ref"], "dependsOn": []} for one in others),
        ],
    }


def _model(subject: Subject) -> dict[str, Any]:
    manifest = subject.manifest
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": subject.name,
        "version": subject.manifest_sha256[:12],
        "description": f"{manifest.task} on {manifest.target.device}, compressed from {manifest.teacher or UNKNOWN}",
        "hashes": [_hash(manifest.files[manifest.model_file].sha256)],
        "modelCard": _card(subject),
        "properties": [
            _property("verdict", subject.verdict),
            _property("signature", subject.signature),
            _property("signing_key", subject.key or UNKNOWN),
            _property("manifest_sha256", subject.manifest_sha256),
            _property("recipe_sha256", manifest.recipe_sha256 or UNKNOWN),
            _property("target", manifest.target.name),
            _property("licence", "not stated"),
            _property("input_contract", manifest.input_spec.model_dump_json()),
        ],
    }


def _card(subject: Subject) -> dict[str, Any]:
    parameters = {
        "task": subject.manifest.task,
        "modelArchitecture": subject.student or UNKNOWN,
        "inputs": [{"format": f"{a.name}: {a.dtype} {list(a.shape)}"} for a in subject.inputs],
        "outputs": [{"format": f"{a.name}: {a.dtype} {list(a.shape)}"} for a in subject.outputs],
        "datasets": [{"ref": _reference(source)} for source in subject.sources],
    }
    gates = [gate_line(gate) for gate in subject.gates]
    return {
        "modelParameters": {name: value for name, value in parameters.items() if value != []},
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(subject))},
        "considerations": {
            "technicalLimitations": subject.limits,
            **({"performanceTradeoffs": gates} if gates else {}),
            "environmentalConsiderations": _environment(subject),
        },
    }


def _metrics(subject: Subject) -> Iterator[dict[str, Any]]:
    for one in subject.figures:
        bounds = {} if one.interval is None else _bounds(*one.interval)
        yield {"type": one.name, "value": _number(one.value), "slice": "test", **bounds}
    if (measured := subject.measured) is not None:
        for name in ("p50", "p90", "p99"):
            yield {"type": f"latency_{name}_ms", "value": _number(getattr(measured.latency_ms, name)),
                   "slice": f"measured on {subject.device}"}  # fmt: skip
        if measured.peak_rss_bytes is not None:
            yield {
                "type": "peak_rss_bytes",
                "value": str(measured.peak_rss_bytes),
                "slice": f"measured on {subject.device}",
            }
    elif (found := subject.predicted) is not None:
        yield {"type": "predicted latency_ms", "value": f"predicted {_number(found.low_ms)} to {_number(found.high_ms)}",
               "slice": f"predicted for {subject.device}, not measured: {found.basis}",
               **_bounds(found.low_ms, found.high_ms)}  # fmt: skip


def _environment(subject: Subject) -> dict[str, Any]:
    energy = subject.energy
    if energy is None:
        return {"properties": [_property("energy", f"{UNKNOWN}: no power rail or energy counter was read")]}
    cost = {"value": energy.joules_per_item / J_PER_KWH, "unit": "kWh"}
    provider = {"organization": {"name": UNKNOWN}, "energySource": "unknown", "energyProvided": cost}
    about = [_property("per", "one inference"), _property("joules", _number(energy.joules_per_item)),
             _property("covers", energy.covers)]  # fmt: skip
    return {
        "energyConsumptions": [
            {"activity": "inference", "energyProviders": [provider], "activityEnergyCost": cost, "properties": about}
        ]
    }


def _teacher(subject: Subject) -> Iterator[dict[str, Any]]:
    found = None if subject.report is None else subject.report.teacher
    name = subject.manifest.teacher
    if name is None:
        return
    yield {
        "type": "machine-learning-model",
        "bom-ref": TEACHER,
        "name": name,
        "description": f"the teacher; source: {(found and found.source) or UNKNOWN}",
        **_licence(found.licence if found else None),
    }


def _data(source: DataSource) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": _reference(source),
        "name": source.name,
        "description": f"roles: {', '.join(source.roles)}",
        **({"hashes": [_hash(source.sha256)]} if source.sha256 else {}),
        **_licence(source.licence),
        "data": [
            {
                "type": "dataset",
                "name": source.name,
                "description": f"taken: {source.taken or UNKNOWN}; place: {source.place}",
            }
        ],
    }


def _reference(source: DataSource) -> str:
    return f"data:{source.name}"


def _files(subject: Subject) -> Iterator[dict[str, Any]]:
    for name, entry in subject.manifest.files.items():
        size = _property("bytes", str(entry.bytes))
        yield {
            "type": "file",
            "bom-ref": f"file:{name}",
            "name": name,
            "hashes": [_hash(entry.sha256)],
            "properties": [size],
        }


def _tool(name: str, version: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": f"tool:{name}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower()}@{version}",
        **_installed_licence(name, version),
    }


def _installed_licence(name: str, version: str) -> dict[str, Any]:
    """What a package says of its licence, where just that version is installed here; nothing where it is not."""
    try:
        about = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return _licence(None)
    expression = about.json.get("license_expression")
    if about["Version"] != version or not isinstance(expression, str):
        return _licence(None)
    return {"licenses": [{"expression": expression}]}


def _licence(text: str | None) -> dict[str, Any]:
    if text in SPDX:
        return {"licenses": [{"license": {"id": text}}]}
    return {"properties": [_property("licence", text or UNKNOWN)]}


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"rsedge:{name}", "value": value}


def _bounds(low: float, high: float) -> dict[str, Any]:
    return {"confidenceInterval": {"lowerBound": _number(low), "upperBound": _number(high)}}


def _number(value: float) -> str:
    return f"{value:.6g}"
