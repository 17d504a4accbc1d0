"""A bundle's model card in Hugging Face's format: YAML front matter, then Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from rsedge.data.bands import BandSpec
from rsedge.data.metrics.verdict import gate_line
from rsedge.reports import figures as f
from rsedge.reports.cards.subject import UNKNOWN, Subject
from rsedge.reports.cards.tasks import words_of
from rsedge.reports.tables import code, plain

CARD = "README.md"
"""What Hugging Face calls a card's file."""
WRITTEN = b"\n# Written by rsedge card; the same command writes it anew.\n"
"""Stands in the front matter as a comment: by it a card is known from a README.md that somebody wrote."""


def model_card(subject: Subject) -> str:
    """The whole text."""
    head = yaml.safe_dump(front_matter(subject), sort_keys=False, allow_unicode=True, width=100)
    return f"---{WRITTEN.decode()}{head}---\n\n" + "\n".join(_body(subject)) + "\n"


def front_matter(subject: Subject) -> dict[str, Any]:
    """What Hugging Face reads of a card; fields that nothing is known of are left out."""
    manifest, pipeline = subject.manifest, words_of(subject.manifest.task).pipeline
    sensor = manifest.input_spec.sensor
    head: dict[str, Any] = {
        "license": "unknown",
        "library_name": "rsedge",
        "tags": ["remote-sensing", "edge", manifest.target.runtime, manifest.target.precision, *([sensor] if sensor else [])],
    }  # fmt: skip
    if pipeline is not None:
        head["pipeline_tag"] = pipeline
    if subject.report is not None and subject.figures:
        head["model-index"] = [_results(subject)]
    return head


def _results(subject: Subject) -> dict[str, Any]:
    tested = [source.name for source in subject.sources if "test" in source.roles]
    metrics = [{"type": one.name, "value": one.value, "name": f"{one.title}: {one.text}"} for one in subject.figures]
    data = {"type": "other", "name": ", ".join(tested) or "the run's test set", "split": "test"}
    task = words_of(subject.manifest.task).pipeline or subject.manifest.task
    return {"name": subject.name, "results": [{"task": {"type": task}, "dataset": data, "metrics": metrics}]}


def _body(subject: Subject) -> Iterator[str]:
    manifest = subject.manifest
    yield f"# {plain(subject.name)}\n"
    made_for = f"A {plain(manifest.task)} model for {plain(manifest.target.device)}"
    yield f"{made_for}, compressed by rsedge from the teacher {_teacher(subject)}."
    yield f"\nVerdict of its gates: {plain(subject.verdict)}."
    for title, lines in (
        ("Input", _input(subject)),
        ("Output", _output(subject)),
        ("Accuracy", _accuracy(subject)),
        ("Latency, memory and energy", _device(subject)),
        ("Gates", [f"- {plain(gate_line(gate))}" for gate in subject.gates] or ["None were judged."]),
        ("Limits: what was never measured or is not known", [f"- {plain(limit)}" for limit in subject.limits]),
        ("Training data", _data(subject)),
        ("Teacher", _teacher_lines(subject)),
        ("Integrity", _integrity(subject)),
        ("How to check it", ["```console\n$ rsedge verify BUNDLE\n$ rsedge inspect BUNDLE\n```"]),
    ):
        yield f"\n## {title}\n"
        yield from lines


def _teacher(subject: Subject) -> str:
    return code(subject.manifest.teacher or UNKNOWN)


def _input(subject: Subject) -> Iterator[str]:
    spec = subject.manifest.input_spec
    for one in subject.inputs:
        yield f"- {code(one.name)}: {one.dtype} {_shape(one.shape)}"
    if subject.manifest.parts is not None:
        return
    used = UNKNOWN if spec.gsd_range_m is None else f"{spec.gsd_range_m[0]:g} to {spec.gsd_range_m[1]:g} m"
    yield f"- Raw digital numbers: scale, offset, normalisation ({spec.normalisation}) and the mask of missing pixels are inside."
    yield f"- Physical quantity: {spec.quantity}; layout {spec.layout}; made for a GSD of {used}.\n"
    yield from _table(
        ("band", "wavelength", "GSD", "physical = DN × scale + offset", "nodata", "mean, std", "sensor"),
        map(_band, spec.bands),
    )


def _band(band: BandSpec) -> Sequence[str]:
    wave = band.polarisation or ("" if band.wavelength_nm is None else f"{band.wavelength_nm:g} nm")
    gsd = "" if band.gsd_m is None else f"{band.gsd_m:g} m"
    nodata = "none" if band.nodata is None else f"{band.nodata:g}"
    return (
        band.name, wave or UNKNOWN, gsd or UNKNOWN, f"DN × {band.scale:g} + {band.offset:g}", nodata,
        f"{band.mean:.4g}, {band.std:.4g}", band.sensor or UNKNOWN,
    )  # fmt: skip


def _output(subject: Subject) -> Iterator[str]:
    for one in subject.outputs:
        yield f"- {code(one.name)}: {one.dtype} {_shape(one.shape)}"
    yield f"- Outputs: {', '.join(plain(name) for name in subject.manifest.classes)}"


def _accuracy(subject: Subject) -> Iterator[str]:
    if not subject.figures:
        yield "No metric is recorded."
        return
    yield "On the run's test set; intervals are of the test data alone, not of other places or seasons.\n"
    yield from _table(("metric", "value"), ((one.title, one.text) for one in subject.figures))


def _device(subject: Subject) -> Iterator[str]:
    measured, energy = subject.measured, subject.energy
    yield f"- Latency: {plain(subject.latency)}"
    if measured is not None:
        threads = UNKNOWN if measured.threads is None else str(measured.threads)
        made = f"{measured.runtime} {measured.runtime_version}, batch {measured.batch}, threads {threads}"
        memory = f.size(measured.peak_rss_bytes) if measured.peak_rss_bytes else UNKNOWN
        yield f"- Measured with {plain(made)}, power mode {plain(measured.power_mode or UNKNOWN)}"
        yield f"- Peak memory of a process that loads and runs it: {memory}"
    per_item = UNKNOWN if energy is None else f"{energy.joules_per_item:.3g} J ({plain(energy.covers)})"
    yield f"- Energy per inference: {per_item}"
    yield f"- Size of the model's files: {f.size(_model_bytes(subject))}"
    target = subject.target
    yield f"- Parameters: {UNKNOWN if target is None or target.params is None else f'{target.params:,}'}"


def _model_bytes(subject: Subject) -> int:
    target = subject.target
    if target is not None and target.size_bytes is not None:
        return target.size_bytes
    return sum(entry.bytes for name, entry in subject.manifest.files.items() if name.startswith("model"))


def _data(subject: Subject) -> Iterator[str]:
    if not subject.sources:
        yield f"Data: {UNKNOWN} from the bundle alone; the run's report names it."
        return
    head = ("source", "roles", "licence", "taken", "west, south, east, north", "SHA-256")
    rows = (
        (s.name, ", ".join(s.roles), s.licence or UNKNOWN, s.taken or UNKNOWN, s.place, s.sha256 or UNKNOWN)
        for s in subject.sources
    )
    yield from _table(head, rows)
    assert subject.report is not None
    yield f"\nHash of the data manifest: {code(subject.report.data.manifest_sha256)}."


def _teacher_lines(subject: Subject) -> Iterator[str]:
    teacher = None if subject.report is None else subject.report.teacher
    yield f"- Name: {_teacher(subject)}"
    yield f"- Source: {plain((teacher and teacher.source) or UNKNOWN)}"
    yield f"- Licence: {plain((teacher and teacher.licence) or UNKNOWN)}"
    yield f"- Student's architecture: {plain(subject.student or UNKNOWN)}"


def _integrity(subject: Subject) -> Iterator[str]:
    manifest = subject.manifest
    yield f"- Manifest SHA-256: {code(subject.manifest_sha256)}; recipe SHA-256: {code(manifest.recipe_sha256 or UNKNOWN)}"
    yield f"- Signature: {plain(subject.signature)}"
    tools = ", ".join(f"{name} {version}" for name, version in manifest.tool_versions.items())
    yield f"- Made: {plain(manifest.created or UNKNOWN)}, with {plain(tools) or UNKNOWN}\n"
    rows = ((name, f"{entry.bytes:,}", entry.sha256) for name, entry in sorted(manifest.files.items()))
    yield from _table(("file", "bytes", "SHA-256"), rows)


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(map(plain, row))} |" for row in rows)
