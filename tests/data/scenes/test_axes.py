"""Axes of Zarr stores in any order, and coordinates along them: pixel for pixel, and at the right places or at none."""

from __future__ import annotations

import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.data.scenes.axes import Axes, Coordinate, axes_of, place_of
from rsedge.data.scenes.raster_file import Window, pixel_to_map
from rsedge.data.scenes.zarr_store import ZarrRaster

zarr = pytest.importorskip("zarr")
NAMES = {"bands": "band", "rows": "y", "columns": "x", "time": "time"}
HERE = Path("a.zarr")


def store(path: Path, image: np.ndarray, order: tuple[str, ...], version: int = 3, **coordinates: Any) -> Path:
    """An image (time, bands, rows, columns) with its axes in an order, those that are left out of length 1, and coordinates, as
    xarray writes them."""
    all_axes = ("time", "bands", "rows", "columns")
    kept = image[tuple(slice(None) if axis in order else 0 for axis in all_axes)]
    left = [axis for axis in all_axes if axis in order]
    stored = kept.transpose([left.index(axis) for axis in order])
    names = [NAMES[axis] for axis in order]
    named = {"dimension_names": names} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": names}}
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_array("scene", data=stored, chunks=tuple(max(1, n // 2) for n in stored.shape), **named)
    for name, values in {"time": np.zeros(1), "spatial_ref": np.array(0), **coordinates}.items():
        group.create_array(name, data=values)
    group["spatial_ref"].attrs.update({"epsg_code": 32632})
    return path


orders = st.sampled_from(
    [("time", "bands", "rows", "columns"), ("bands", "rows", "columns"), ("time", "rows", "columns")]
)
steps = st.tuples(st.floats(0.1, 1000), st.booleans()).map(lambda one: -one[0] if one[1] else one[0])


@settings(max_examples=40, deadline=None)
@given(
    order=orders.flatmap(st.permutations),
    shape=st.tuples(st.integers(1, 4), st.integers(2, 9), st.integers(2, 9)),
    version=st.sampled_from([2, 3]),
    dx=steps,
    dy=steps,
    first=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    data=st.data(),
)
def test_any_order_of_axes_is_read_pixel_for_pixel_at_its_place(
    order: list[str],
    shape: tuple[int, int, int],
    version: int,
    dx: float,
    dy: float,
    first: tuple[float, float],
    data: Any,
) -> None:
    count, height, width = (shape[0] if "bands" in order else 1), *shape[1:]
    image = np.arange(math.prod((count, height, width)), dtype=np.uint16).reshape(1, count, height, width)
    x, y = first[0] + dx * np.arange(width), first[1] + dy * np.arange(height)
    with (
        TemporaryDirectory() as folder,
        ZarrRaster(store(Path(folder) / "a.zarr", image, tuple(order), version, x=x, y=y)) as file,
    ):
        assert (file.count, file.height, file.width) == (count, height, width)
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
        bands = data.draw(st.lists(st.integers(1, count), min_size=1, max_size=count, unique=True))
        found = file.read(bands, Window(left, top, columns, rows))
        assert np.array_equal(found, image[0, [b - 1 for b in bands], top : top + rows, left : left + columns])
        block = file.blocks([1])
        assert (block.height, block.width) == (max(1, height // 2), max(1, width // 2)) and block.pixel_bytes >= 2
        assume(not file.transform.is_identity)
        assert file.crs == "EPSG:32632" and not file.unread
        # Coordinates are the middles of pixels.
        across, _ = pixel_to_map(file.transform, np.arange(width) + 0.5, 0.5)
        _, down = pixel_to_map(file.transform, 0.5, np.arange(height) + 0.5)
        assert np.allclose(across, x, rtol=0, atol=1e-6 * abs(dx)) and np.allclose(down, y, rtol=0, atol=1e-6 * abs(dy))


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(st.integers(-(10**9), 10**9).map(lambda n: n / 1000), min_size=2, max_size=30),
    dtype=st.sampled_from(["float64", "float32", "int64"]),
)
def test_a_place_is_never_off_by_a_quarter_of_a_pixel(values: list[float], dtype: str) -> None:
    """Whatever the coordinates are: even ones have a place, of others nothing is made up."""
    axis = np.array(values).astype(dtype)
    even = Coordinate("y", np.arange(3.0))
    transform, why = place_of(even, Coordinate("x", axis), HERE)
    assert (transform is None) is bool(why)
    if transform is None:
        assert "its coordinate 'x' has uneven steps" in why[0]
        return
    found, _ = pixel_to_map(transform, np.arange(len(axis)) + 0.5, 0)
    assert np.abs(found - axis.astype(np.float64)).max() <= 0.25 * abs(transform.a) * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(3, 40),
    step=steps,
    first=st.floats(-1e5, 1e5),
    share=st.floats(0.05, 3) | st.floats(-3, -0.05),
    data=st.data(),
)
def test_one_step_that_is_another_takes_the_place_away(
    count: int, step: float, first: float, share: float, data: Any
) -> None:
    axis = first + step * np.arange(count)
    place_of(Coordinate("y", axis), Coordinate("x", axis), HERE)
    where = data.draw(st.integers(1, count - 1))
    # How far it lies off a line through both ends.
    assume(abs(share) * max(count - 1 - where, where - 1) > 0.02 * (count - 1 + abs(share)))
    axis[where:] += share * step
    transform, why = place_of(Coordinate("y", np.arange(2.0)), Coordinate("x", axis), HERE)
    assert transform is None and "uneven steps" in why[0]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 400), digits=st.sampled_from([1e-3, 1e-2, 0.25]), first=st.floats(-120, 120))
def test_rounding_of_single_precision_is_no_uneven_step(count: int, digits: float, first: float) -> None:
    axis = (first + digits * np.arange(count)).astype(np.float32)
    transform, why = place_of(Coordinate("lat", axis), Coordinate("lon", axis), HERE)
    assert transform is not None and not why
    assert transform.a == pytest.approx(digits, rel=0.02)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.array([0.0, 10, 21]), r"'x' has uneven steps \(10 to 11\)"),
        (np.array([0.0, 10, 20, 500]), "uneven"),
        (np.array([5.0, 5, 5]), "uneven"),
        (np.array([[0.0, 1], [2, 3]]), "'y', 'x' are not a number for each row"),
        (np.array(["a", "b", "c"]), "are not a number for each row"),
        (None, "coordinates 'y' are not a number"),
    ],
)
def test_what_no_transform_can_say_is_told(tmp_path: Path, x: Any, words: str) -> None:
    width = 3 if x is None else len(x)
    image, more = np.zeros((1, 1, 4, width), np.uint8), {} if x is None else {"x": x}
    with ZarrRaster(store(tmp_path / "a.zarr", image, ("bands", "rows", "columns"), y=np.arange(4.0), **more)) as file:
        assert file.crs is None and file.transform.is_identity and file.gsd_m() is None
        assert re.search(words, file.unread[0]) and "names EPSG:32632 but has no transform" in file.unread[1]


@pytest.mark.parametrize(("shape", "name"), [((1, 5), "y"), ((5, 1), "x")])
def test_a_single_row_or_column_has_no_place_of_its_own(tmp_path: Path, shape: tuple[int, int], name: str) -> None:
    """Nothing says how large its pixels are; a transform does."""
    image = np.arange(5, dtype=np.uint8).reshape(1, 1, *shape)
    y, x = (np.arange(float(n)) for n in shape)
    place = store(tmp_path / "a.zarr", image, ("bands", "rows", "columns"), y=y, x=x)
    with ZarrRaster(place) as file:
        assert file.crs is None and f"its coordinate '{name}' has one value" in file.unread[0]
        assert np.array_equal(file.read([1], Window(0, 0, shape[1], shape[0])), image[0])
    zarr.open_group(str(place), mode="r+")["scene"].attrs["transform"] = [10, 0, 5e5, 0, -10, 5.4e6]
    with ZarrRaster(place) as file:
        assert file.crs == "EPSG:32632" and file.transform == (10, 0, 5e5, 0, -10, 5.4e6) and not file.unread


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_coordinates_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    x = np.arange(6.0)
    x[3] = value
    place = store(
        tmp_path / "a.zarr", np.zeros((1, 1, 6, 6), np.uint8), ("bands", "rows", "columns"), y=np.arange(6.0), x=x
    )
    with pytest.raises(RequestError, match=r"a\.zarr: its coordinate 'x' holds NaN or infinity; mend it"):
        ZarrRaster(place)


def test_packed_coordinates_are_unpacked(tmp_path: Path) -> None:
    axes = ("bands", "rows", "columns")
    place = store(
        tmp_path / "a.zarr", np.zeros((1, 1, 3, 4), np.uint8), axes, y=np.arange(3), x=np.arange(4, dtype=np.int16)
    )
    group = zarr.open_group(str(place), mode="r+")
    group["x"].attrs.update({"scale_factor": 10.0, "add_offset": 500005.0})
    group["y"].attrs.update({"add_offset": 7})
    with ZarrRaster(place) as file:
        assert file.transform == (10, 0, 500000, 0, 1, 6.5)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([], Axes(1, 2, 0, None)),
        (["a", "b", "d"], Axes(1, 2, 0, None)),
        (["a", "b", "Channel"], Axes(0, 1, 2, None)),
        (["lat", "wavelength", "lon"], Axes(0, 2, 1, None)),
        (["x", "y", "z"], Axes(1, 0, 2, None)),
        (["t", "a", "b"], Axes(1, 2, None, 0)),
        (["y", None, "x"], Axes(0, 2, 1, None)),
    ],
)
def test_axes_of_other_names_are_bands_rows_and_columns_in_that_order(names: list[Any], wanted: Axes) -> None:
    assert axes_of(names, (1, 5, 6), HERE) == wanted


@pytest.mark.parametrize(
    ("names", "lengths", "words"),
    [
        (["time", "y", "x"], (3, 5, 6), "its axis 'time' has 3 times, a scene is of one"),
        (["band", "Time", "y", "x"], (3, 2, 5, 6), "its axis 'Time' has 2 times"),
        (["y", "lat", "x"], (3, 5, 6), "its axes are y, lat, x"),
        ([], (3, 5, 6, 7), "its axes are not named"),
        (["member", "band", "y", "x"], (1, 5, 6, 7), "its axes are member, band, y, x"),
        (["time", "band", "y"], (1, 5, 6), "its axes are time, band, y"),
        (["band", "y"], (3, 5, 6), "names 2 axes of an array of 3"),
    ],
)
def test_axes_that_make_no_scene_are_named(names: list[str], lengths: tuple[int, ...], words: str) -> None:
    with pytest.raises(RequestError, match=rf"a\.zarr: {words}"):
        axes_of(names, lengths, HERE)


def test_a_cube_beside_the_image_does_not_hide_it(tmp_path: Path) -> None:
    """Labels of several times have four axes too, and are no scene; two that may be one are refused."""
    image = np.arange(60, dtype=np.uint16).reshape(1, 3, 4, 5)
    path = store(tmp_path / "s.zarr", image, ("bands", "rows", "columns"))
    group = zarr.open_group(str(path), mode="a")
    group.create_array("labels", data=np.zeros((2, 1, 4, 5), np.uint8))
    with ZarrRaster(path) as raster:
        assert raster.count == 3
    group.create_array("truth", data=np.zeros((1, 4, 5), np.uint8))
    with pytest.raises(RequestError, match="one array of three axes"):
        ZarrRaster(path)
