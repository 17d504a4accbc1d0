"""What the tests of teachers measured, as it ships with the package. Imports no torch.

Tests write ``tested.json`` (``make teachers``) and ``tested-full.json`` (``make teachers-full``): row or family -> point ->
outcome. A row's own outcome goes before its family's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from rsedge.models.confirmed import confirmed
from rsedge.models.zoo import TeacherRow

Results = Mapping[str, Mapping[str, str]]
POINTS = {
    "size": "the parameter count of the network as built equals the published or listed one",
    "names": "names and shapes equal a listing of the published model or of its authors' code, or the size torchvision states",
    "file": "a checkpoint written in the authors' layout (random weights) loads strictly; recognised: by the sniffer too",
    "confirmed": "the published weights gave what the authors' code gives with them: by whom (`models/confirmed.json`, "
    "[how to send yours](checking.md))",
    "authors": "equal to the authors' own code at the published size (or at the reduced width, where it says so), weights drawn "
    "under the published names, in their file's wrapping, or real ones where that is said; the largest difference over the largest "
    "value, within 1e-4",
    "library": "equal to another library's network with the same weights, within 1e-5 (family, reduced width); of a part where "
    "one is named",
    "formulas": "equal to the published formulas written out in the test, within 1e-5 (family, reduced width); of a part where one "
    "is named",
    "export": "torch to ONNX and OpenVINO at f32, largest difference over largest output; TensorRT for RTX compiles (as before)",
    "compressed": "what recipes do went through, as named, at reduced width with random weights; in brackets the largest "
    "difference between torch, ONNX Runtime and OpenVINO at f32 after pruning; compiles: fp16 and INT8",
    "full": "the published size with random weights: nodes of the ONNX graph, size on disk, seconds from building to "
    "OpenVINO's graph on two cores shared with other work, peak memory (`make teachers-full`)",
}
LETTERS = dict(zip(POINTS, "SNLPABFECW", strict=True))
"""One letter for each point, where there is no room for more."""
AGREEMENT = {
    "authors": "its authors' code",
    "library": "a library",
    "formulas": "formulas",
    "description": "its description",
}
"""What a row was found to agree with. A description has sizes and names alone; it is what is left where nothing else was tried, and
all there is of a network that was only described, whatever its building blocks agree with."""


@cache
def tested() -> Results:
    """The results of both files, and who confirmed what."""
    found: dict[str, dict[str, str]] = {}
    for one in confirmed():
        by = found.setdefault(one.row, {})
        by["confirmed"] = "; ".join(filter(None, (by.get("confirmed"), one.words)))
    for name in ("tested.json", "tested-full.json"):
        content = json.loads((resources.files("rsedge.models") / name).read_text(encoding="utf-8"))
        for key, points in content.items():
            found[key] = found.get(key, {}) | points
    return found


def outcomes(row: TeacherRow, results: Results) -> dict[str, str]:
    """Point -> outcome of what was tried with a row."""
    both = {**results.get(f"family {row.family}", {}), **results.get(row.name, {})}
    return {point: both[point] for point in POINTS if point in both}


def agreement(row: TeacherRow, results: Results) -> str:
    """What a row agrees with, in words of :data:`AGREEMENT`, behind each in brackets the part of it that was compared."""
    found = outcomes(row, results)
    kinds = {kind: _part(found[kind]) for kind in AGREEMENT if kind in found}
    if row.published == "description" or not kinds:
        kinds["description"] = ""
    return ", ".join(AGREEMENT[kind] + part for kind, part in kinds.items())


def _part(outcome: str) -> str:
    """`` (backbone)`` of ``5e-06 (backbone)``; figures in brackets are no part."""
    named = re.search(r" \([a-z][^()]*\)$", outcome)
    return named[0] if named else ""
