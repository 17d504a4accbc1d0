"""docs/quantization.md is what its command writes from the rows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT, ROWS = ROOT / "docs/quantization.md", ROOT / "benchmarks/results/int8.json"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    """The script as a module: it lies outside the package."""
    spec = importlib.util.spec_from_file_location("int8_page", ROOT / "benchmarks/quantization/page.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_page_is_what_its_command_writes(page: ModuleType) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert page.put(text, json.loads(ROWS.read_text())) == text, (
        "`python benchmarks/quantization/bench.py --render` writes it"
    )


def test_noise_stands_beside_a_ratio_and_a_page_without_its_place_is_refused(page: ModuleType) -> None:
    rows = json.loads(ROWS.read_text())
    row = next(iter(rows["networks"].values()))
    row["f32"]["whole"] = {"value": 1.5, "low": 1.4, "high": 1.6, "noise": "too busy"}
    assert "1.500 (1.400 to 1.600) (too busy)" in page.put(DOCUMENT.read_text(encoding="utf-8"), rows)
    with pytest.raises(ValueError, match="no markers"):
        page.put("a page", rows)
