"""``docs/teachers.md`` is what the rows and the tests' results say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsedge.data.errors import RequestError
from rsedge.models import tested as results_module
from rsedge.models.confirmed import Compared, Confirmation, read_outcome
from rsedge.models.doc import markdown
from rsedge.models.outside.loading import LOADERS
from rsedge.models.tested import AGREEMENT, POINTS, agreement
from rsedge.models.tested import tested as shipped_results
from rsedge.models.zoo import LOADER_NAMES, teacher_row, zoo

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
    text = markdown([row], {row.name: {"library": "own"}, f"family {row.family}": {"library": "shared", "export": "x"}})
    line = next(line for line in text.splitlines() if line.startswith(f"| `{row.name}`"))
    assert line.endswith("| own |  | x |  |  |")


def test_notes_are_sentences() -> None:
    """A comma in an unquoted YAML list would cut one in two."""
    for row in zoo():
        assert all(note.endswith(".") for note in row.notes), (row.name, row.notes)


def test_kinds_of_agreement_are_told_apart() -> None:
    """A description alone, whatever its building blocks agree with, is not called more than that."""
    authors, described = teacher_row("satmae-rgb-vitl"), teacher_row("ringmo-vitb")
    results = {"family vit": {"library": "torchvision"}, authors.name: {"authors": "2e-07", "formulas": "x"}}
    assert agreement(authors, results) == "its authors' code, a library, formulas"
    assert agreement(described, results) == "a library, its description"
    assert agreement(described, {}) == "its description"
    kinds = {row.name: agreement(row, shipped_results()) for row in zoo()}
    assert kinds["aquila"] == "its description"
    assert kinds["hypersigma-cls-b"] == "its authors' code, formulas"
    assert kinds["rs-llava"] == "a library"
    # A backbone's agreement, or that of a narrow network, is not the whole's; figures in brackets are no part.
    assert kinds["rvsa-vitb-upernet-loveda"] == "its authors' code (backbone), a library (head)"
    assert kinds["geopix-masks"] == "its authors' code (reduced width)"
    assert agreement(authors, {authors.name: {"authors": "3e-06 (6e-04 at the poles)"}}) == "its authors' code"
    assert all(words in DOCUMENT.read_text() for words in AGREEMENT.values())


def test_who_confirmed_a_row_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Confirmation(
        row="satmae-rgb-vitl", by="Laboratory A; SatMAE @ e31c11f", date="2026-01-02", rsedge="1", file="x.pth",
        file_sha256="0" * 64, reference_sha256="1" * 64, drawn=False,
        arrays={"embedding": Compared(difference=4e-7, allowed=1e-4)},
    )  # fmt: skip
    monkeypatch.setattr(results_module, "confirmed", lambda: (one, one.model_copy(update={"by": "B"})))
    shipped_results.cache_clear()
    try:
        found = shipped_results()[one.row]["confirmed"]
        assert found == "Laboratory A; SatMAE @ e31c11f (4e-07); B (4e-07)"
        assert found in markdown([teacher_row(one.row)], shipped_results())
    finally:
        shipped_results.cache_clear()


@pytest.mark.parametrize(("change", "message"), [
    ({"drawn": True}, "weights are drawn by the rule"),
    ({"arrays": {"a": {"difference": 2e-4, "allowed": 1e-4}}}, "does not agree: a"),
    ({"arrays": {"a": {"difference": None, "allowed": 1e-4}}}, "does not agree: a"),
    ({"arrays": {}}, "at least 1"),
    ({"by": ""}, "by: "),
    ({"by": "A | 0.0 |"}, "is no line of text"),
    ({"by": "A\n| B"}, "is no line of text"),
    ({"row": "satmae-rgb-vitx"}, "nearest: satmae-rgb-vitl"),
    ({"file_sha256": "abc"}, "file_sha256"),
])  # fmt: skip
def test_what_confirms_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    whole = {
        "row": "satmae-rgb-vitl", "by": "A", "date": "2026-01-02", "rsedge": "1", "file": "x", "file_sha256": "0" * 64,
        "reference_sha256": "1" * 64, "drawn": False, "arrays": {"a": {"difference": 0, "allowed": 1e-4}},
    }  # fmt: skip
    assert read_outcome(whole, "x").agrees
    with pytest.raises(RequestError, match=message):
        read_outcome(whole | change, "x")
