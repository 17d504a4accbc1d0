"""``docs/teachers.md`` is what the rows and the tests' results say."""

from __future__ import annotations

from pathlib import Path

from rsedge.models.doc import markdown
from rsedge.models.outside.loading import LOADERS
from rsedge.models.tested import POINTS
from rsedge.models.tested import tested as shipped_results
from rsedge.models.zoo import LOADER_NAMES, zoo

DOCUMENT = Path(__file__).parents[2] / "docs/teachers.md"


def test_the_document_is_the_generated_one() -> None:
    assert DOCUMENT.read_text() == markdown(zoo(), shipped_results()), "run `make teachers`"


def test_the_loaders_of_other_libraries_are_those_that_exist() -> None:
    assert list(LOADER_NAMES) == list(LOADERS)


def test_results_belong_to_rows_and_points_that_exist() -> None:
    results = shipped_results()
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
