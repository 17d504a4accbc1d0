"""A run whose scene lies on a map leaves who was right where as a GeoTIFF per target, true to labels and answers pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from rsedge.cli.main import run_app
from rsedge.data.sets.scene_sources import load_scene
from rsedge.reports.images import CASES, cases

PLACE = {"crs": "EPSG:32633", "transform": from_origin(600_000, 5_300_000, 10, 10)}


def case(teacher: int, student: int, label: int) -> str | None:
    """In words, as the map's classes are called."""
    if 255 in (teacher, student):
        return None
    if label == 255:
        return f"they {'agree' if teacher == student else 'differ'}, no label"
    if teacher == student:
        return "both right" if teacher == label else "both wrong"
    if label not in (teacher, student):
        return "both wrong"
    return "teacher right, student wrong" if teacher == label else "student right, teacher wrong"


@given(st.integers(0, 3) | st.just(255), st.integers(0, 3) | st.just(255), st.integers(0, 3) | st.just(255))
def test_every_pixel_has_the_case_that_its_three_numbers_say(teacher: int, student: int, label: int) -> None:
    number = int(cases(*(np.array([[v]], np.uint8) for v in (teacher, student, label)))[0, 0])
    assert (None if number == 255 else CASES[number][0]) == case(teacher, student, label)


def write(path: Path, values: np.ndarray, names: list[str], **place: Any) -> None:
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **place
    ) as file:
        file.write(values)
        file.descriptions = names


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real chip, labels with holes, a teacher that errs, and a recipe."""
    pytest.importorskip("spyndex")
    folder = tmp_path_factory.mktemp("map")
    chip = load_scene("spyndex-sentinel2")
    image = chip.image[:, :200, :180]
    labels = ((image[3] - image[2]) / (image[3] + image[2]) > 0.4).astype(np.uint8)
    labels[:, 100:120] = 255
    dn = np.rint(image * 1e4).astype(np.uint16)
    dn[:, 150:, :60] = 0
    write(folder / "scene.tif", dn, list(chip.bands), nodata=0, **PLACE)
    write(folder / "unplaced.tif", dn, list(chip.bands), nodata=0)
    write(folder / "labels.tif", labels[None], ["class"], **PLACE)
    write(folder / "unplaced-labels.tif", labels[None], ["class"])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
    torch.onnx.export(net.eval(), (torch.zeros(1, 4, 64, 64),), folder / "net.onnx", dynamo=True, verbose=False)
    recipe = {
        "name": "map", "threads": 1,
        "teacher": {"name": "onnx:net.onnx", "classes": ["bare", "green"],
                    "input": {"bands": ["blue", "green", "red", "nir"], "tile": 64, "quantity": "boa_reflectance",
                              "scale": 1e-4, "nodata": 0, "mean": 0.15, "std": 0.1}},
        "data": {"train": [{"path": "scene.tif"}], "test": {"path": "scene.tif", "labels": "labels.tif", "fraction": 0.4},
                 "block": 40},
        "student": {"name": "slim-unet", "stem": 8, "encoder": [8, 16], "blocks": [0, 0], "decoder": [16, 8]},
        "steps": [{"distill": {"steps": 2, "views": 4, "batch": 2}}],
        "targets": ["openvino-cpu-f32", "tensorrt-jetson-orin-nano-8gb-fp16"],
        "gates": [{"metric": "agreement", "min": 0.0}],
    }  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def run(folder: Path, *more: str) -> None:
    assert run_app(["run", str(folder / "recipe.json"), "--run-dir", str(folder / "run"), *more]) == 0


def test_the_map_says_of_every_judged_pixel_who_was_right(prepared: Path) -> None:
    run(prepared)
    folder = prepared / "run"
    with np.load(folder / "stages/data/test.npz") as z:
        tiles = {name: z[name] for name in z.files}
    with np.load(folder / "stages/teacher/test.npz") as z:
        teacher = z["kept"]
    with rasterio.open(prepared / "scene.tif") as scene, rasterio.open(prepared / "labels.tif") as file:
        dn, labels, grid = scene.read(), file.read(1), (scene.crs, scene.transform, scene.shape)
    page = (folder / "report.html").read_text()
    for target in ("openvino-cpu-f32", "tensorrt-jetson-orin-nano-8gb-fp16"):
        assert f'href="disagreement/{target}.tif"' in page
        with np.load(folder / f"stages/verify/{target}.npz") as z:
            student = z["kept"]
        with rasterio.open(folder / f"disagreement/{target}.tif") as file:
            found = file.read(1)
            assert (file.crs, file.transform, file.shape) == grid and file.nodata == 255
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert json.loads(file.tags()["rsedge_classes"]) == [name for name, _ in CASES]
            colours = file.colormap(1)
        assert ["#{:02x}{:02x}{:02x}".format(*colours[n][:3]) for n in range(len(CASES))] == [c for _, c in CASES]
        expected = np.full(labels.shape, 255, np.uint8)
        names = [name for name, _ in CASES]
        for n, (row, col) in enumerate(tiles["corner"]):
            for y, x in zip(*np.nonzero(tiles["counted"][n]), strict=True):
                place = (row + y, col + x)
                assert (dn[:, place[0], place[1]] == tiles["dn"][n, :, y, x]).all() and expected[place] == 255
                word = case(teacher[n, y, x], student[n, y, x], labels[place])
                expected[place] = 255 if word is None else names.index(word)
        assert np.array_equal(found, expected)
        assert len(set(np.unique(found)) - {255}) >= 3 and (found == 255).any()


def test_maps_go_with_their_target_and_with_the_place(prepared: Path) -> None:
    run(prepared)
    run(prepared, "--set", "targets=[onnxruntime-cpu-f32]")
    kept = prepared / "run/disagreement"
    assert [path.name for path in kept.iterdir()] == ["onnxruntime-cpu-f32.tif"]
    scene, labels = prepared / "unplaced.tif", prepared / "unplaced-labels.tif"
    unplaced = [f"data.train=[{{path: {scene}, gsd_m: 10}}]", f"data.test.path={scene}", "data.test.gsd_m=10",
                f"data.test.labels={labels}", "targets=[onnxruntime-cpu-f32]"]  # fmt: skip
    run(prepared, *(word for setting in unplaced for word in ("--set", setting)))
    assert not list(kept.iterdir()) and "disagreement/" not in (prepared / "run/report.html").read_text()
