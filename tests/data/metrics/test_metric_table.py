"""The table of metrics is the only list of them."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from rsedge.data.metrics import table as metric_table
from rsedge.data.metrics.comparison import Compared
from rsedge.data.metrics.table import METRICS, headline_order, needing, step_scores
from rsedge.models.zoo import Task
from rsedge.recipe.schema import GateSection
from rsedge.runtimes.wholes.table import WHOLES

ROOT = Path(metric_table.__file__).parents[2]
ROOMS = ("compress", "data", "devices", "export", "models", "reports", "rsedge", "runtimes")
LIMITS: dict[str, dict[str, Any]] = {
    "max_drop": {"max_drop": 0.1},
    "min": {"min": 0.1},
    "max": {"max": 1},
}
LEAST = 4
"""So many names of metrics in one tuple, list, set or keys of a mapping are a list of metrics."""


def test_every_row_is_whole() -> None:
    for name, row in METRICS.items():
        assert row.name == name and row.title and row.constraints
        assert ("max_drop" in row.constraints) <= row.higher, f"{name}: a drop is of what should be high"
    assert set(headline_order()) <= set(METRICS) and set(step_scores()) <= set(METRICS)
    assert needing("folds") == ("f1_crossval", "agreement_crossval")
    tasks = {*get_args(Task), *(row.load().task for row in WHOLES.values())}
    assert all(task in tasks for row in METRICS.values() for task in row.tasks)


def test_what_is_not_measured_or_over_folds_names_functions_that_there_are() -> None:
    for row in METRICS.values():
        measured = row.name in ("latency", "size") or {"measurement", "folds"} & set(row.needs)
        assert bool(row.computed) != bool(measured), row.name
        for place in row.computed.values():
            module, _, name = place.partition(":")
            assert callable(getattr(import_module(module), name))
    assert {kind for row in METRICS.values() for kind in row.computed} == set(get_args(Compared))


def test_the_schema_takes_exactly_the_table() -> None:
    assert GateSection.model_json_schema()["properties"]["metric"]["enum"] == list(METRICS)
    for name, row in METRICS.items():
        assert GateSection.model_validate({"metric": name, **LIMITS[row.constraints[0]]}).metric == name
    with pytest.raises(ValidationError, match=r"Input should be 'kappa', .* or 'memory'"):
        GateSection.model_validate({"metric": "kapa", "min": 0})


def lists(tree: ast.Module) -> list[tuple[int, set[str]]]:
    """(line, metrics) of every literal that lists metrics."""
    found = []
    for node in ast.walk(tree):
        parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else getattr(node, "keys", [])
        names = {p.value for p in parts if isinstance(p, ast.Constant) and p.value in METRICS}
        if len(names) >= LEAST:
            found.append((node.lineno, names))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_nobody_keeps_a_second_list(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        if path == Path(metric_table.__file__):
            continue
        assert not lists(ast.parse(path.read_text())), path
