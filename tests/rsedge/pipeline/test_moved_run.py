"""A run folder with its recipe, moved or called from elsewhere: nothing is done again, for keys rest on contents, not on places."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rsedge.cli.main import run_app
from tests.rsedge.search.searched import F32, RECIPE, write

OWN = RECIPE.replace("source: spyndex-sentinel2}]", "path: scenes/a.tif, nodata: 0}]").replace(
    "test: {source: spyndex-sentinel2}", "test: {path: scenes/b.tif, nodata: 0, labels: labels.tif}"
)
EDGE = 220


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe, teacher, scenes, labels, mission and the finished run."""
    folder = tmp_path_factory.mktemp("first") / "job"
    write(folder, f"{OWN}mission: orbit.yaml\n")
    (folder / "orbit.yaml").write_text("orbit: {altitude_km: 500}\nsensor: {gsd_m: 10}\n")
    (folder / "scenes").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        save(folder / f"scenes/{name}.tif", rng.integers(1, 4000, (4, EDGE, EDGE)).astype(np.uint16))
    save(folder / "labels.tif", rng.integers(0, 2, (1, EDGE, EDGE)).astype(np.uint8))
    assert run(folder) == 0
    return folder


def save(path: Path, values: np.ndarray) -> None:
    grid = rasterio.transform.from_origin(600000, 5200000, 10, 10)
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2]}
    with rasterio.open(path, "w", driver="GTiff", dtype=values.dtype, crs="EPSG:32632", transform=grid, **shape) as out:
        out.write(values)
        if len(values) == 4:
            out.descriptions = ("blue", "green", "red", "nir")


def run(folder: Path, *more: str) -> int:
    return run_app(["run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run"), "--json", *more])


def keys(folder: Path) -> dict[str, str]:
    records = sorted((folder / "run/stages").glob("*/record.json"))
    return {p.parent.name: json.loads(p.read_text())["key"] for p in records}


def made_again(folder: Path, *more: str) -> list[str]:
    """The stages that another run of the recipe does."""
    log = folder / "run/run.log"
    before = len(log.read_text())
    assert run(folder, *more) == 0
    lines = [line.split(" ", 1)[1] for line in log.read_text()[before:].splitlines()]
    stages = [line.split("] ")[1] for line in lines if line.startswith("[")]
    assert stages
    return [name for name in stages if not name.endswith(": reused")]


def test_a_run_that_was_moved_does_nothing_again(
    ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = keys(ended)
    moved = shutil.copytree(ended, tmp_path / "deeper" / "other-name")
    ended.rename(ended.with_name("away"))  # what still pointed there would not be found
    try:
        assert made_again(moved) == []
        monkeypatch.chdir(moved)
        assert made_again(Path()) == []
        monkeypatch.chdir(moved / "scenes")
        assert made_again(Path("..")) == []
    finally:
        ended.with_name("away").rename(ended)
    assert keys(moved) == known
    capsys.readouterr()
    assert run_app(["runs", str(moved / "run"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    manifest = json.loads((moved / f"run/bundles/{F32}/manifest.json").read_text())
    assert row["state"] == "done" and row["recipe"] == manifest["recipe_sha256"]


def test_other_contents_in_the_same_place_are_another_run(ended: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ended, tmp_path / "job")
    before = keys(folder)
    write(folder, (folder / "recipe.yaml").read_text(), seed=1)
    assert made_again(folder, "--until", "teacher") == ["teacher"]
    assert keys(folder)["data"] == before["data"] and keys(folder)["teacher"] != before["teacher"]
    save(folder / "labels.tif", np.zeros((1, EDGE, EDGE), np.uint8))
    assert made_again(folder, "--until", "teacher") == ["data", "teacher"]


def test_a_run_that_ends_with_the_teacher_says_what_it_reached(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(ended, "--until", "teacher") == 0
    reached = json.loads(capsys.readouterr().out)["reached"]
    record = json.loads((ended / "run/stages/teacher/record.json").read_text())["value"]
    assert reached["teacher-openvino-f32 on test"]["kappa"] == record["metrics"]["f32"]["kappa"]
    assert set(reached) == {
        f"teacher-openvino-{p} on {role}" for p in record["sizes"] for role in ("test", "selection")
    }
    assert run_app(["run", str(ended / "recipe.yaml"), "--run-dir", str(ended / "run"), "--until", "distill"]) == 0
    assert "  student on selection: score 0." in capsys.readouterr().err
