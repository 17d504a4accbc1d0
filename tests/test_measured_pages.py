"""Pages of docs/ with a measured part are what their commands write from the rows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from rsedge.recipe.reading import load_recipe
from tests.benchmark_scripts import benchmark_module

ROOT = Path(__file__).parents[1]
FOLDERS = ("quantization", "replacing", "pruning", "scene", "scale")
PAGES = {folder: benchmark_module(f"{folder}/page.py") for folder in FOLDERS}


def written(folder: str, rows: dict[str, dict[str, Any]]) -> str:
    """A page as it would be with these rows."""
    page = PAGES[folder]
    text: str = page.PAGE.put(page.PAGE.document.read_text(encoding="utf-8"), page.lines(rows))
    return text


def rows_of(folder: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = copy.deepcopy(PAGES[folder].PAGE.stored())
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_page_is_what_its_command_writes(folder: str) -> None:
    page = PAGES[folder].PAGE
    assert written(folder, rows_of(folder)) == page.document.read_text(encoding="utf-8"), (
        f"`python benchmarks/{folder}/bench.py --render` writes it"
    )
    assert any(rows_of(folder).values())
    with pytest.raises(ValueError, match="no markers"):
        page.put("a page", [])


def test_noise_stands_beside_a_ratio() -> None:
    rows = rows_of("quantization")
    row = next(iter(rows["networks"].values()))
    row["f32"]["whole"] = {"value": 1.5, "low": 1.4, "high": 1.6, "noise": "too busy"}
    assert "1.500 (1.400 to 1.600) (too busy)" in written("quantization", rows)


def test_what_was_predicted_or_noisy_or_undone_says_so() -> None:
    rows = rows_of("replacing")
    next(iter(rows["tokens"].values()))["int8"]["noise"] = "too busy"
    trial = next(iter(rows["runs"].values()))["trials"][0]
    trial |= {"outcome": "rejected", "reason": "no gain: by far", "score": None}
    trial["latency"] = {"a": {"value": 0.5, "low": 0.5, "high": 0.5, "provenance": "predicted"}}
    text = written("replacing", rows)
    assert "(too busy)" in text and "a: 0.500 (0.500 to 0.500), predicted" in text and "undone: no gain: by far" in text


@pytest.mark.parametrize("name", ["clouds", "tokens"])
def test_the_recipes_beside_the_benchmark_are_recipes(name: str) -> None:
    assert load_recipe(str(ROOT / f"benchmarks/replacing/{name}.yaml")).replace is not None
