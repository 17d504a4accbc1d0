"""What README and docs say that recipes and the demo reach is what the stored rows say; no figure is typed by hand."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MEND = "`python benchmarks/verdicts/{}.py --render` writes it"


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts as modules: they lie outside the package."""
    sys.path.insert(0, str(ROOT / "benchmarks/verdicts"))
    yield
    sys.path.remove(str(ROOT / "benchmarks/verdicts"))


def current(module: ModuleType) -> tuple[list[object], int]:
    """Rows of the recipes as they are, and how many were planned."""
    import grid

    stored = grid.Grid(module.STORE)
    now = {p.stem: grid.sha256_file(p) for p in (ROOT / "recipes").glob("*.yaml")}
    return [r for r in stored.rows if now.get(r.recipe) == r.recipe_sha256], stored.planned


def test_the_documents_on_the_demo_are_those_of_its_rows() -> None:
    import demo_seeds
    import grid

    rows, planned = current(demo_seeds)
    mend = MEND.format("demo_seeds")
    assert demo_seeds.DOCUMENT.read_text(encoding="utf-8") == demo_seeds.document(rows, planned), mend
    assert grid.between(README, "demo", demo_seeds.readme_lines(rows, planned)) == README, mend


def test_the_documents_on_recipes_are_those_of_their_rows() -> None:
    import grid
    import ready_recipes

    rows, planned = current(ready_recipes)
    mend = MEND.format("ready_recipes")
    assert ready_recipes.DOCUMENT.read_text(encoding="utf-8") == ready_recipes.document(
        rows, planned or ready_recipes.SEEDS
    ), mend
    assert grid.between(README, "results", ready_recipes.readme_table(rows)) == README, mend


def test_the_times_in_readme_are_those_that_were_taken() -> None:
    import grid
    import times

    assert grid.between(README, "times", times.table()) == README, MEND.format("times")
    for name in ("make demo", "make test"):
        assert f"$ {name}" in README.split("\n## ")[1], f"README's first section names {name}"
        assert f"\n{name}\n" in (ROOT / ".ci/run").read_text()


def test_the_matrix_in_readme_is_that_of_rows_and_tests() -> None:
    import grid
    import support

    assert grid.between(README, "support", support.table()) == README, (
        "`python benchmarks/verdicts/support.py` writes it"
    )


def test_readme_has_no_result_but_those_written_by_a_command() -> None:
    text = re.sub(r"<!-- (\w+): written by a command -->.*?<!-- end of \1 -->", "", README, flags=re.S)
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    quoted = re.findall(
        r"(?:kappa|F1|AP50|cosine|agreement|accuracy)[^|\n]{0,40}?\b0\.\d{3,}|\b\d+(?:\.\d+)? ms\b", text
    )
    assert not quoted, f"figures typed by hand: {quoted}; docs/recipes.md is where they stand"


def row(**changes: object) -> object:
    import grid

    gate = grid.Gate(metric="kappa", constraint="max_drop", limit=0.02, target="t", value=0.01, interval=(0.0, 0.015), n=9,
                     unit="blocks", outcome="passed")  # fmt: skip
    values = {"labels": {"seed": "0"}, "recipe": "demo", "recipe_sha256": "a", "exit_code": 0, "gates": (gate,),
              "seconds": 1.0, "reused": False, "date": "2026-01-01"}  # fmt: skip
    return grid.Row(**{**values, **changes})


def test_a_row_passes_only_with_every_gate_decided() -> None:
    assert row().passed
    (gate,) = row().gates
    undecided = gate.model_copy(update={"interval": (0.0, 0.03), "outcome": "undecided", "leans": "passed"})
    assert not row(gates=(gate, undecided)).passed
    assert not row(exit_code=3).passed
    assert not row(gates=()).passed, "no gates: nothing was judged"


def test_a_second_start_goes_on_and_a_changed_recipe_runs_again(tmp_path: Path) -> None:
    import grid

    recipe = tmp_path / "demo.yaml"
    recipe.write_text("name: demo\n")
    made = row(recipe_sha256=grid.sha256_file(recipe), judges_sha256=grid.judges_sha256())
    rows = grid.Grid(tmp_path / "rows.json", planned=2)
    rows.add(made)
    rows.add(made)
    again = grid.Grid(tmp_path / "rows.json")
    assert again.rows == [made] and again.planned == 2
    assert again.find(recipe, {"seed": "0"}) == made
    assert again.find(recipe, {"seed": "1"}) is None
    recipe.write_text("name: demo\nseed: 1\n")
    assert again.find(recipe, {"seed": "0"}) is None


def test_a_row_of_other_intervals_runs_again_and_is_marked(tmp_path: Path) -> None:
    import grid

    recipe = tmp_path / "demo.yaml"
    recipe.write_text("name: demo\n")
    rows = grid.Grid(tmp_path / "rows.json", planned=1)
    rows.add(row(recipe_sha256=grid.sha256_file(recipe), judges_sha256="of other code"))
    assert rows.find(recipe, {"seed": "0"}) is None
    assert "earlier code" in grid.where_and_when(rows.rows)


@pytest.mark.slow
def test_a_row_of_data_read_otherwise_runs_again(tmp_path: Path) -> None:
    import grid
    import ready_recipes

    recipe = ROOT / "recipes/quickstart.yaml"
    rows = grid.Grid(tmp_path / "rows.json", planned=1)
    common = {"recipe_sha256": grid.sha256_file(recipe), "judges_sha256": grid.judges_sha256()}
    rows.add(row(**common, data_sha256="of other data"))
    assert not ready_recipes.is_current(recipe, 0, rows)
    rows.add(row(**common, data_sha256=ready_recipes.data_sha256(recipe, 0)))
    assert ready_recipes.is_current(recipe, 0, rows)


def test_a_run_that_cannot_start_is_a_row_that_says_why(tmp_path: Path) -> None:
    import grid

    recipe = tmp_path / "demo.yaml"
    recipe.write_text("name: demo\nteacher: {name: nobody}\n")
    found = grid.run(recipe, {"seed": "0"}, ["seed=0"], tmp_path / "run")
    assert (found.exit_code, found.passed) == (2, False)
    assert found.error and "demo.yaml" in found.error


def test_a_document_without_markers_is_refused() -> None:
    import grid

    with pytest.raises(ValueError, match="no markers"):
        grid.between("nothing here", "demo", "text")


def test_a_busy_machine_is_told_to_change_what_it_changed() -> None:
    import busy

    one = busy.Decided(pruning=("accepted, 8 channels",), removed=({"a": 8},), params=9, int8="mixed", reasons=("0.7",))
    assert one.differences(one.model_copy(update={"reasons": ("0.9",)})) == [], "reasons hold timings"
    for name, value in {"removed": ({"b": 8},), "params": 10, "int8": "performance"}.items():
        assert one.differences(one.model_copy(update={name: value})) == [name]
