"""README's matrix of tasks, students and runtimes: what is measured, built or predicted. Running it writes the matrix.

*Measured* and *predicted* are what the rows of the ready recipes say (benchmarks/results/recipes.json); *built* is what the tests
of exports build and hold against PyTorch. Nothing is typed by hand: what no row and no test says is not in the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import grid

sys.path.insert(0, str(Path(__file__).parents[2]))

from rsedge.devices.profiles.profile import load_profile
from rsedge.models.students import CATALOGUE, VECTOR, StudentEntry
from rsedge.models.zoo import teacher_row
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import parse_target
from tests.export.targets.test_litert import BUILT as BUILT_FOR_LITERT
from tests.export.test_student_exports import OWN
from tests.export.test_student_targets import SHAPES

README = grid.ROOT / "README.md"
STORE = grid.RESULTS / "recipes.json"
Place = tuple[str, str]
"""Runtime and kind of device."""
COLUMNS: dict[Place, str] = {
    ("openvino", "cpu"): "OpenVINO, CPU", ("onnxruntime", "cpu"): "ONNX Runtime, CPU", ("tensorrt", "gpu"): "TensorRT, Jetson",
    ("litert", "cpu"): "LiteRT, CPU", ("openvino", "vpu"): "OpenVINO, Myriad X",
}  # fmt: skip
ROWS: dict[tuple[str, str], str] = {
    ("maps", "CHW"): "class maps of scenes", ("maps", "TCHW"): "change between two dates", ("boxes", "CHW"): "objects in images",
    ("vectors", "CHW"): "classes, values, embeddings of chips", ("vectors", "TC"): "the same of pixel series",
    ("vectors", "C"): "the same of places", ("images", "CHW"): "finer images of scenes",
    ("features", "CHW"): "maps of features, for heads",
}  # fmt: skip
BUILT: dict[Place, frozenset[str]] = {
    ("openvino", "cpu"): frozenset(OWN), ("onnxruntime", "cpu"): frozenset(OWN), ("tensorrt", "gpu"): frozenset(SHAPES),
    ("litert", "cpu"): frozenset(BUILT_FOR_LITERT), ("openvino", "vpu"): frozenset(SHAPES),
}  # fmt: skip
"""Students that tests/export builds for a runtime, by its own parameters."""
SHOWN = 3


def kind_of(task: str) -> str:
    """What a task gives: maps, boxes, images or vectors."""
    return {"segmentation": "maps", "detection": "boxes", "super-resolution": "images"}.get(
        task, "vectors" if task in VECTOR else task
    )


def recorded() -> dict[tuple[tuple[str, str], Place], dict[str, str]]:
    """By row and column of the table: student -> measured or predicted, from the recipes' rows."""
    found: dict[tuple[tuple[str, str], Place], dict[str, str]] = {}
    now = {path.stem: grid.sha256_file(path) for path in (grid.ROOT / "recipes").glob("*.yaml")}
    for row in grid.Grid(STORE).rows:
        if now.get(row.recipe) != row.recipe_sha256:
            continue
        recipe = load_recipe(row.recipe)
        teacher = teacher_row(recipe.teacher.name)
        # A head that is fitted on labels makes a classifier of an encoder.
        task = recipe.teacher.probe.task if recipe.teacher.probe else teacher.task
        for one in row.targets:
            target = parse_target(one.name)
            cell = ((kind_of(task), teacher.input_spec.layout), (target.runtime, load_profile(target.device).kind))
            state = "measured" if one.p50_ms is not None else "predicted"
            known = found.setdefault(cell, {})
            if known.get(recipe.student.name) != "measured":
                known[recipe.student.name] = state
    return found


def table() -> str:
    """The matrix."""
    states = recorded()
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---|" * len(COLUMNS)]
    for row, title in ROWS.items():
        students = [entry.name for entry in CATALOGUE.values() if _does(entry, row)]
        cells = [_cell(states.get((row, place), {}), students, BUILT[place]) for place in COLUMNS]
        lines.append("| " + " | ".join([title, *cells]) + " |")
    return "\n".join(lines)


def _does(entry: StudentEntry, row: tuple[str, str]) -> bool:
    return row[1] in entry.layouts and any(kind_of(task) == row[0] for task in entry.tasks) and not entry.copies


def _cell(states: dict[str, str], students: Iterable[str], built: frozenset[str]) -> str:
    parts = []
    for state in ("measured", "predicted"):
        if names := sorted(name for name, found in states.items() if found == state):
            parts.append(f"**{state}** {_names(names)}")
    if names := [name for name in students if name in built and name not in states]:
        parts.append(f"built {_names(names)}")
    return "; ".join(parts) or "-"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join("the teacher" if name == "teacher" else f"`{name}`" for name in names[:SHOWN]) + more


if __name__ == "__main__":
    grid.write(README, grid.between(README.read_text(encoding="utf-8"), "support", table()))
