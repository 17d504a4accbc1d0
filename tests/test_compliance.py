"""docs/compliance.md names fields of records; each of them exists."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from rsedge.devices.measure.soak import Soak
from rsedge.recipe.schema import Recipe
from rsedge.reports.schema import Report
from rsedge.runtimes.bundle.manifest import Manifest

DOCUMENT = Path(__file__).parents[1] / "docs/compliance.md"
RECORDS = {"report.json": Report, "manifest.json": Manifest, "soak.json": Soak, "recipe.resolved.yaml": Recipe}
FIELD = re.compile(r"`([a-z.]+\.(?:json|yaml)):([a-z0-9_.]+)`")


def models_in(annotation: object) -> list[type[BaseModel]]:
    """Records that an annotation may hold, through lists, names and alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in models_in(inner)]


def exists(record: type[BaseModel], path: str) -> bool:
    found = [record]
    for name in path.split("."):
        fields = [model.model_fields[name] for model in found if name in model.model_fields]
        if not fields:
            return False
        found = [model for field in fields for model in models_in(field.annotation)]
    return True


def test_every_field_named_exists() -> None:
    named = FIELD.findall(DOCUMENT.read_text())
    assert len(named) > 60 and {file for file, _ in named} == set(RECORDS)
    assert [f"{file}:{path}" for file, path in named if not exists(RECORDS[file], path)] == []


@pytest.mark.parametrize("path", ["target", "targets.evidenc", "targets.evidence.own.middle", "name.of"])
def test_a_field_that_does_not_exist_is_found_out(path: str) -> None:
    assert not exists(Report, path)


def test_every_demand_has_an_answer_or_says_that_it_has_none() -> None:
    rows = [line.split("|")[1:-1] for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    demands = [row for row in rows if row[0].strip() not in ("demand", "subject", "point")]
    assert len(demands) > 30
    for demand, answer, lacking in demands:
        assert FIELD.search(answer) or "not answered" in lacking, demand
