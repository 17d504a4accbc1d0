"""docs/benchmarks.md is what its command writes from the rows, and says where rsedge is behind."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks/peers"


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts as modules: they lie outside the package."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def row(time: float, size: int, kappa: float) -> dict[str, Any]:
    def around(value: float) -> dict[str, float]:
        return {"value": value, "low": value * 0.9, "high": value * 1.1}

    figures = {"kappa": around(kappa), "agreement": around(kappa)}
    made = {"notes": [], "steps": 9, "training_seconds": 30.0}
    return {"seconds": 60.0, "error": None, "made": made, "size_bytes": size, "ms": 1.0,
            "time": {"teacher-f32": around(time)}, "figures": figures, "drops": {"kappa": around(0.9 - kappa)},
            "peak_share": around(0.5)}  # fmt: skip


def entry(**rows: dict[str, Any]) -> dict[str, Any]:
    made_on = {"cpu": "a CPU", "instruction_sets": ["avx2"], "date": "2026-01-01", "commit": "c", "versions": {}}
    named = {name.replace("_", "-"): found for name, found in rows.items()}
    return {"case": "cloud-mask", "seed": 0, "recipe": "cloud-mask", "settings": [], "rows": named, "made_on": made_on,
            "peak": {"by": "matrix product", "gmacs": 200.0}, "load": "", "noise": None}  # fmt: skip


def written(**rows: dict[str, Any]) -> str:
    import page

    text: str = page.document({"real": {"one": entry(**rows)}})
    return text


def test_the_page_is_that_of_its_rows() -> None:
    import page
    import results

    assert page.DOCUMENT.read_text(encoding="utf-8") == page.document(results.stored()), (
        "`python benchmarks/peers/page.py` writes it"
    )


def test_the_page_says_who_beats_ours() -> None:
    teacher, ours = row(1.0, 100, 0.9), row(0.2, 10, 0.8)
    assert "is on the front" in written(teacher_f32=teacher, ours=ours)
    better = copy.deepcopy(ours) | {"size_bytes": 9}
    found = written(teacher_f32=teacher, ours=ours, nncf=better)
    assert "is not on the front**: NNCF" in found and "is on the front" not in found


def test_the_page_tells_goals_that_are_missed() -> None:
    ours = row(0.02, 10, 0.95)
    ours["time"]["nncf"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    found = written(teacher_f32=row(1.0, 100, 0.9), ours=ours)
    goals = {line.split("|")[1].strip(): line for line in found.splitlines() if line.startswith("| at ")}
    assert "not held" not in goals["at least 30 times as fast as the teacher in f32"]
    assert "not held" in goals["at least 14 times as fast as plain NNCF"]


def test_a_goal_inside_an_interval_cannot_be_told() -> None:
    """One noisy race decides nothing."""
    ours = row(1 / 31, 10, 0.95)
    found = written(teacher_f32=row(1.0, 100, 0.9), ours=ours)
    (line,) = (line for line in found.splitlines() if "30 times as fast" in line)
    assert "31 (28.2 to 34.4)" in line and "cannot be told" in line and "held" not in line


def test_a_contender_that_made_nothing_says_why() -> None:
    nothing = {"seconds": 5.0, "made": None, "error": "no module named that"}
    found = written(teacher_f32=row(1.0, 100, 0.9), ours=row(0.5, 10, 0.8), olive=nothing)
    assert "nothing made: no module named that" in found


def test_the_front_is_of_those_that_nobody_beats_in_everything() -> None:
    import front

    points = {"a": (1.0, 2.0), "b": (2.0, 1.0), "c": (2.0, 2.0), "d": (1.0, 2.0)}
    assert front.front(points) == ["a", "b", "d"]
    assert front.beaten_by("c", points["c"], points) == ["a", "b", "d"]
    assert "nothing that could be judged" in front.words("e", points, {"e": "E"})


def test_every_contender_has_its_module() -> None:
    import contender

    assert all((FOLDER / f"{one.module}.py").is_file() for one in contender.CONTENDERS.values())
    first, second, *_ = contender.CONTENDERS
    assert (first, second) == (contender.TEACHER, contender.OURS), "others are given ours' time and MACs"
