"""Labels that judge: what they may hold, what is refused by value, and that following the advice works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from rasterio.transform import from_origin

from rsedge.data.errors import RequestError
from rsedge.data.scenes.label_files import IGNORE, UNKNOWN, LabelReader, parse_map
from rsedge.data.scenes.raster import open_raster
from rsedge.data.wording import Wording

CLASSES = ("land", "water", "salt marsh")
PLACE = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10)}


def raster(path: Path, values: np.ndarray, **profile: Any) -> Path:
    values = np.atleast_3d(values) if values.ndim == 2 else values
    values = np.moveaxis(values, -1, 0) if values.shape[-1] == 1 else values
    profile = {**PLACE, **profile}
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **profile
    ) as f:
        f.write(values)
    return path


def labels(tmp_path: Path, values: np.ndarray, classes: tuple[str, ...] = CLASSES, **profile: Any) -> Any:
    options = {k: profile.pop(k) for k in ("mapping", "ignore", "wording") if k in profile}
    scene = raster(tmp_path / "scene.tif", np.ones((20, 30), np.uint16))
    path = raster(tmp_path / "labels.tif", values, **profile)
    with open_raster(scene) as grid, LabelReader(path, grid, classes, **options) as reader:
        return reader.whole()


def numbers(*values: float, dtype: Any = np.uint8) -> np.ndarray:
    """A map of 20 rows, 30 columns that holds all the values."""
    return np.resize(np.array(values, dtype=dtype), (20, 30))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_class_numbers_of_any_type(tmp_path: Path, dtype: Any) -> None:
    values = numbers(0, 1, 2, dtype=dtype)
    assert np.array_equal(labels(tmp_path, values), values)


@pytest.mark.parametrize("wording", list(Wording))
@pytest.mark.parametrize("found", [(1,), (1, 2), (1, 2, UNKNOWN)])
def test_numbers_that_may_start_at_1_are_told_and_the_advice_works(
    tmp_path: Path, found: tuple[int, ...], wording: Wording
) -> None:
    """The last class is absent, so that no value gives it away."""
    scene, path = raster(tmp_path / "scene.tif", numbers(1)), raster(tmp_path / "labels.tif", numbers(*found))
    with open_raster(scene) as grid, LabelReader(path, grid, CLASSES, wording=wording) as reader:
        (warning,) = reader.warnings
        assert "no pixel holds 0, class 'land'; if its numbers start at 1, say so" in warning
    advice = warning.rpartition("say so: ")[2]
    if wording is Wording.COMMAND:
        mapping = parse_map(shlex.split(advice)[1])
    else:
        mapping = yaml.safe_load(advice.removeprefix("labels: "))["map"]
    with open_raster(scene) as grid, LabelReader(path, grid, CLASSES, mapping=mapping) as reader:
        assert not reader.warnings
        assert np.array_equal(reader.whole(), numbers(*(v if v == UNKNOWN else v - 1 for v in found)))
    with open_raster(scene) as grid, LabelReader(raster(tmp_path / "own.tif", numbers(0, 1)), grid, CLASSES) as reader:
        assert not reader.warnings


def test_nodata_masks_and_255_are_unknown(tmp_path: Path) -> None:
    found = labels(tmp_path, numbers(0, 1, 9, UNKNOWN), nodata=9)
    assert np.array_equal(found, numbers(0, 1, UNKNOWN, UNKNOWN))


def test_a_map_says_what_values_are(tmp_path: Path) -> None:
    mapping = {0: "land", 255: "water", 7: 2, 8: IGNORE}
    found = labels(tmp_path, numbers(0, 255, 7, 8), mapping=mapping, nodata=255)
    assert np.array_equal(found, numbers(0, 1, 2, UNKNOWN))
    with pytest.raises(RequestError, match="no class: 8, which the map leaves out"):
        labels(tmp_path, numbers(0, 8), mapping={0: "land"})
    with pytest.raises(RequestError, match=r"'watr' is no class \(nearest: 'water'\)"):
        labels(tmp_path, numbers(0), mapping={0: "watr"})


@pytest.mark.parametrize(
    ("values", "classes", "said"),
    [
        (numbers(0, 255), CLASSES[:2], "0 and 255 alone"),
        (numbers(1, 2, 3), CLASSES, r"no class \(0 to 2\): 3"),
        (numbers(10, 20, 30), CLASSES, "10, 20, 30"),
        (numbers(-1, 0, 1, dtype=np.int16), CLASSES, "-1"),
        (numbers(0, 1, 2, 7), CLASSES, "7"),
        (numbers(1, 2, 255), CLASSES[:2], "2"),
        (numbers(3301010100, 3301020000, dtype=np.uint32), CLASSES[:2], "3301010100, 3301020000"),
    ],
)
def test_other_values_are_refused_and_the_advice_works(
    tmp_path: Path, values: np.ndarray, classes: tuple[str, ...], said: str
) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        labels(tmp_path, values, classes)
    option = re.search(r"--label-map ([^' ,]+(?:,[^' ,]+)*|'[^']*')", str(caught.value))
    assert option is not None
    mapping = parse_map(shlex.split(option[1])[0])
    assert set(mapping) == set(np.unique(values).tolist())
    with pytest.raises(RequestError) as again:
        labels(tmp_path, values, classes, wording=Wording.RECIPE)
    written = yaml.safe_load("{" + str(again.value).split("say what they are: ")[1] + "}")["labels"]
    assert written["map"] == {int(k): v for k, v in mapping.items()} and written["path"].endswith("labels.tif")
    labels(tmp_path, values, classes, mapping=written["map"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (numbers(0, 0.5, 1, dtype=np.float32), "fractions"),
        (numbers(0, np.nan, 1, dtype=np.float32), "-a_nodata nan"),
        (np.zeros((3, 20, 30), np.uint8), "3 bands.*picture of labels"),
        (numbers(*range(200)), "not class numbers"),
    ],
)
def test_what_is_no_class_map_is_refused(tmp_path: Path, values: np.ndarray, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        labels(tmp_path, values)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"transform": from_origin(5e5 + 5, 5.4e6, 10, 10)}, "0.50 pixels off"),
        ({"transform": from_origin(5e5, 5.4e6, 20, 20)}, "pixels off"),
        ({"transform": Affine(10, 0, 5e5, 0, 10, 5.4e6 - 200)}, "south up"),
        ({"crs": "EPSG:32633"}, "CRS EPSG:32633"),
        ({"crs": None}, "has no CRS"),
    ],
)
def test_other_grids_are_refused(tmp_path: Path, profile: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        labels(tmp_path, numbers(0, 1), **profile)
    with pytest.raises(RequestError, match="20x29 pixels, the scene has 20x30"):
        labels(tmp_path, numbers(0, 1)[:, 1:])


@pytest.mark.parametrize("text", ["0", "a=land", "0=", "0=land,"])
def test_maps_that_are_none(text: str) -> None:
    with pytest.raises(RequestError, match="VALUE=CLASS"):
        parse_map(text)


def test_a_class_number_that_is_nodata_too_is_asked_for(tmp_path: Path) -> None:
    values = numbers(0, 1, 2)
    with pytest.raises(RequestError, match="hold 0, which is class 'land' and the file's nodata too") as caught:
        labels(tmp_path, values, nodata=0, wording=Wording.COMMAND)
    advice = re.search(r"--label-map ('[^']*')", str(caught.value))
    assert advice
    found = labels(tmp_path, values, nodata=0, mapping=parse_map(shlex.split(advice[1])[0]))
    assert np.array_equal(found, values)
    left_out = labels(tmp_path, values, nodata=0, mapping={0: IGNORE, 1: 1, 2: 2})
    assert np.array_equal(left_out, numbers(UNKNOWN, 1, 2))
    assert np.array_equal(labels(tmp_path, numbers(1, 2), nodata=0), numbers(1, 2))


@pytest.mark.parametrize("values", [numbers(0, 255), numbers(0, 1, 255)])
def test_so_it_is_where_255_stands_beside_it_and_the_advice_works(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(RequestError, match="the file's nodata too") as caught:
        labels(tmp_path, values, CLASSES[:2], nodata=0)
    advice = re.search(r"--label-map (\S+), or", str(caught.value))
    assert advice
    mapping = parse_map(advice[1])
    assert set(mapping) == set(np.unique(values).tolist()) and mapping[0] == "land"
    labels(tmp_path, values, CLASSES[:2], nodata=0, mapping=mapping)


@pytest.mark.parametrize("fill", [-1, -9999])
def test_the_advice_takes_no_value_below_zero_for_a_class(tmp_path: Path, fill: int) -> None:
    with pytest.raises(RequestError, match=rf"map: \{{0: land, 1: water, {fill}: ignore\}}"):
        labels(tmp_path, numbers(fill, 0, 1, dtype=np.int16), CLASSES[:2], wording=Wording.RECIPE)


@pytest.mark.parametrize("options", [{}, {"mapping": {255: IGNORE}}])
def test_labels_of_nothing_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="holds no label of any class"):
        labels(tmp_path, numbers(255), **options)


def test_classes_from_one_on_keep_their_order_in_the_advice(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"map: \{0: ignore, 1: land, 2: water, 3: salt marsh\}"):
        labels(tmp_path, numbers(0, 1, 2, 3), wording=Wording.RECIPE)


def test_more_classes_than_a_byte_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="300 classes"):
        labels(tmp_path, numbers(0, 280, dtype=np.uint16), tuple(map(str, range(300))))


def test_labels_with_a_scale_are_asked_what_their_values_are(tmp_path: Path) -> None:
    path = raster(tmp_path / "labels.tif", numbers(1, 2))
    with rasterio.open(path, "r+") as file:
        file.offsets = (-1.0,)  # values from 1 on, as GDAL would unscale them to 0 on
    scene = raster(tmp_path / "scene.tif", numbers(0, 0))
    with open_raster(scene) as grid:
        with pytest.raises(RequestError, match="as they are stored mean") as caught:
            LabelReader(path, grid, CLASSES)
        advised = parse_map(shlex.split(str(caught.value).split("--label-map ")[1])[0])
        with LabelReader(path, grid, CLASSES, mapping=advised) as reader:
            assert np.array_equal(reader.whole(), numbers(0, 1))


def test_pixels_without_a_label_that_are_nan_may_be_declared(tmp_path: Path) -> None:
    values = numbers(0, 1, float("nan"), dtype=np.float32)
    with pytest.raises(RequestError, match=r"no class \(0 to 2\): nan.*-a_nodata nan"):
        labels(tmp_path, values)
    assert np.array_equal(labels(tmp_path, values, nodata=float("nan")), numbers(0, 1, UNKNOWN))
    with pytest.raises(RequestError, match="they are fractions"):
        labels(tmp_path, numbers(0.5, float("nan"), dtype=np.float32))


def test_a_scene_without_a_place_is_named(tmp_path: Path) -> None:
    path, scene = raster(tmp_path / "labels.tif", numbers(0, 1)), raster(tmp_path / "s.tif", numbers(0), crs=None)
    with open_raster(scene) as grid, pytest.raises(RequestError, match=r"the scene has none.*in the scene"):
        LabelReader(path, grid, CLASSES)
