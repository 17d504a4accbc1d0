"""Writes ``docs/teachers.md`` from the rows and from what the tests measured: ``python -m rsedge.models.doc RESULTS OUT``.

RESULTS is the JSON that the tests write (``make teachers``): row or family -> point -> outcome. Imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from rsedge.data.files import read_json, write_bytes
from rsedge.models.zoo import TeacherRow, zoo

Results = Mapping[str, Mapping[str, str]]
POINTS = {
    "size": "the parameter count of the network as built equals the published or listed one",
    "names": "names and shapes equal a listing of the published model, or the size torchvision states",
    "file": "a checkpoint written in the authors' layout (random weights) loads strictly; recognised: by the sniffer too",
    "forward": "equal to an independent implementation with the same weights, within 1e-5 (family, reduced width)",
    "export": "torch to ONNX to OpenVINO at f32, largest difference of an output; TensorRT for RTX compiles (as before)",
}
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
    lines += ["", "## Notes", ""]
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


if __name__ == "__main__":
    write_bytes(Path(sys.argv[2]), markdown(zoo(), read_json(Path(sys.argv[1]))).encode())
