"""A clock that jumps (a receiver that finds its satellites, an operator who sets it) moves no decision: durations are of the
monotonic clock, and the wall clock only dates what is written."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import rsedge
from tests.runtimes import tiny_models as tiny

ROOT = Path(__file__).parents[1]
FLIES = ("data", "runtimes", "devices/onboard", "rsedge")
DATES = {"devices/onboard/main.py", "devices/onboard/probe.py"}
"""Modules that tell the wall clock's time to whoever drives a board, and decide nothing by it."""


def wall_clock(path: Path) -> Iterator[int]:
    """Lines that read seconds of the wall clock, which could be subtracted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("time", "time_ns") and ast.unparse(node.value) == "time":
            yield node.lineno


def test_what_flies_measures_no_duration_by_the_wall_clock() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for folder in FLIES
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := list(wall_clock(path)))
    }
    assert set(found) == DATES


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_scene_is_mapped_alike_while_the_clock_jumps(
    bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    scene = tiny.write_scene(tmp_path / "scene.tif", tiny.random_scene(tiny.spec(), 90, 90), tiny.NAMES)
    with rsedge.load(bundle()) as opened:
        before, began, now = opened.predict(scene), time.monotonic(), time.time

        def jumping() -> float:
            return now() + (jump_s if time.monotonic() - began > 0.01 else 0)

        monkeypatch.setattr(time, "time", jumping)
        record = opened.predict(scene, tmp_path / "map.tif")
        assert np.array_equal(opened.predict(scene), before)
    assert 0 <= record["run"]["wall_s"] < 60 and all((s or 0) >= 0 for s in record["run"]["seconds"].values())
