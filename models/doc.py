"""Writes ``docs/teachers.md`` from the rows and from what the tests measured: ``python -m rsedge.models.doc RESULTS... OUT``.

RESULTS are JSON files that tests write (``make teachers``, ``make teachers-full``): row or family -> point -> outcome. Imports
no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rsedge.data.files import read_json, write_bytes
from rsedge.models.zoo import TeacherRow, zoo

Results = Mapping[str, Mapping[str, str]]
POINTS = {
    "size": "the parameter count of the network as built equals the published or listed one",
    "names": "names and shapes equal a listing of the published model, or the size torchvision states",
    "file": "a checkpoint written in the authors' layout (random weights) loads strictly; recognised: by the sniffer too",
    "forward": "equal to an independent implementation with the same weights, within 1e-5 (family, reduced width)",
    "export": "torch to ONNX and OpenVINO at f32, largest difference over largest output; TensorRT for RTX compiles (as before)",
    "compressed": "what recipes do went through, as named, at reduced width with random weights; in brackets the largest "
    "difference between torch, ONNX Runtime and OpenVINO at f32 after pruning; compiles: fp16 and INT8",
    "full": "the published size with random weights: nodes of the ONNX graph, size on disk, seconds from building to "
    "OpenVINO's graph on two cores shared with other work, peak memory (`make teachers-full`)",
}
SURVEY = """## Mistakes of the survey

Those about one model stand in its notes below. Beside them: its link for BigEarthNet leads to MMM-RS, another set of images and
texts; VALOR, cited with GAIR and listed among the data sets, is not of remote sensing; no weights of the "million" and
"billion" scale models are public.
"""
_HEAD = """# Teachers

Written by `make teachers` from `models/rows/*.yaml` and the results of the tests; do not edit. `rsedge teachers NAME` shows
one with its bands, checkpoint layout and notes.

Weights: *in a wheel* come with `pip`; *own copy*: give the authors' file with `checkpoint:`; *code only* and *described*: none
are public. An empty cell was not tried.
"""


def markdown(rows: list[TeacherRow], results: Results) -> str:
    """The document."""
    lines = [_HEAD, *(f"- **{point}**: {meaning}" for point, meaning in POINTS.items()), ""]
    lines += _table(["name", "family", "task", "parameters", "input", "licence", "weights", *POINTS], [
        [f"`{r.name}`", r.family, r.task, f"{r.params:,}", r.input_text, r.licence, r.status, *_outcomes(r, results)]
        for r in rows
    ])  # fmt: skip
    lines += ["", SURVEY, "## Notes", ""]
    lines += [f"- {', '.join(f'`{n}`' for n in names)}: {note}" for note, names in _notes(rows).items()]
    return "\n".join(lines) + "\n"


def _outcomes(row: TeacherRow, results: Results) -> list[str]:
    own, shared = results.get(row.name, {}), results.get(f"family {row.family}", {})
    return [own.get(point, shared.get(point, "")) for point in POINTS]


def _table(head: list[str], body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body)]


def _notes(rows: list[TeacherRow]) -> dict[str, list[str]]:
    """Each note with the rows that have it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            found.setdefault(note, []).append(row.name)
    return found


def read_results(paths: Sequence[str | Path]) -> Results:
    """Several files as one; a file that is not there holds nothing."""
    found: dict[str, dict[str, str]] = {}
    for path in filter(Path.exists, map(Path, paths)):
        for name, points in read_json(path).items():
            found[name] = found.get(name, {}) | points
    return found


if __name__ == "__main__":
    *sources, target = sys.argv[1:]
    write_bytes(Path(target), markdown(zoo(), read_results(sources)).encode())
