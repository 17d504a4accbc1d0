"""``docs/teachers.md`` is what the rows and the tests' results say."""

from __future__ import annotations

from pathlib import Path

from rsedge.models.doc import POINTS, markdown, read_results
from rsedge.models.zoo import zoo

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = [DOCS / "teachers.json", DOCS / "teachers-full.json"]


def test_the_document_is_the_generated_one() -> None:
    results = read_results(RESULTS)
    assert (DOCS / "teachers.md").read_text() == markdown(zoo(), results), "run `make teachers`"


def test_results_belong_to_rows_and_points_that_exist() -> None:
    results = read_results(RESULTS)
    known = {row.name for row in zoo()} | {f"family {row.family}" for row in zoo()}
    assert set(results) <= known
    assert {point for points in results.values() for point in points} <= set(POINTS)


def test_outcomes_of_a_row_go_before_those_of_its_family() -> None:
    row = zoo()[0]
    text = markdown([row], {row.name: {"forward": "own"}, f"family {row.family}": {"forward": "shared", "export": "x"}})
    line = next(line for line in text.splitlines() if line.startswith(f"| `{row.name}`"))
    assert line.endswith("| own | x |  |  |")


def test_notes_are_sentences() -> None:
    """A comma in an unquoted YAML list would cut one in two."""
    for row in zoo():
        assert all(note.endswith(".") for note in row.notes), (row.name, row.notes)
