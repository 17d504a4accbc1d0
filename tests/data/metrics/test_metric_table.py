"""The table of metrics is the only list of them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from rsedge.data.metrics import table as metric_table
from rsedge.data.metrics.table import METRICS, headline_order, needing, step_scores
from rsedge.models.zoo import Task
from rsedge.recipe.schema import GateSection

ROOT = Path(metric_table.__file__).parents[2]
ROOMS = ("compress", "data", "devices", "export", "models", "reports", "rsedge", "runtimes")
LEAST = 4
"""So many names of metrics in one tuple, list, set or keys of a mapping are a list of metrics."""
RECORDS = {"summary", "sample_metrics", "box_metrics", "box_statistics", "sample_statistics",
           "table_statistics", "_label_statistics", "caption_statistics"}  # fmt: skip
"""Functions that make the figures themselves, which they name one by one."""


def test_every_row_is_whole() -> None:
    for name, row in METRICS.items():
        assert row.name == name and row.title and row.constraints
        assert ("max_drop" in row.constraints) <= row.higher, f"{name}: a drop is of what should be high"
    assert set(headline_order()) <= set(METRICS) and set(step_scores()) <= set(METRICS)
    assert needing("folds") == ("f1_crossval", "agreement_crossval")
    assert all(task in get_args(Task) for row in METRICS.values() for task in row.tasks)


def test_the_schema_takes_exactly_the_table() -> None:
    assert get_args(get_type_hints(GateSection)["metric"]) == tuple(METRICS)


def lists(tree: ast.Module) -> list[tuple[int, set[str]]]:
    """(line, metrics) of every literal that lists metrics outside the functions that work them out."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name in RECORDS
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
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
