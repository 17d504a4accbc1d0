"""Objects that several tiles see: each once, wherever tiles begin and however little they agree on where its centre lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.boxes.geometry import cornered, overlaps, places
from rsedge.data.boxes.oriented import corners_of
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.inference.detect import detect_scene
from rsedge.runtimes.inference.object_seams import Axis, SeenBoxes, merged
from rsedge.runtimes.inference.tiles import tile_starts
from tests import drawn_ships

TILE = 64
SPEC = InputSpec(bands=(BandSpec(name="red"), BandSpec(name="nir")), tile=TILE, dtype="uint8", quantity="colour")
OVERLAP = TILE // 2
TURNED = BoxSettings(score=0.3, oriented=True)
UNSURE = 1.0
"""Pixels by which a tile misses an object's centre, either way along rows and columns."""


class Unsure:
    """Knows where ships lie, sees those that a tile holds whole, and misses their centres by a little, each tile otherwise.

    The pixels of its scenes are their own places: the first band has the column, the second the row.
    """

    input_spec, device, runtime = SPEC, "CPU", "numpy"

    def __init__(self, ships: np.ndarray) -> None:
        self._ships = ships

    def stream(self, inputs: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        for one in inputs:
            left, top = one["dn"][0, :, 0, 0].astype(int).tolist()
            yield {"logits": self._candidates(top, left)[None], "valid": np.ones((1, TILE, TILE), np.uint8)}

    def _candidates(self, top: int, left: int) -> np.ndarray:
        rng = np.random.default_rng([top, left])
        found = np.zeros((40, 9), np.float32)
        ring = corners_of(self._ships) - [left, top]
        whole = self._ships[((ring >= 0) & (ring <= TILE)).all((1, 2))]
        for row, ship in zip(found, whole, strict=False):
            row[:4] = *(ship[:2] - [left, top] + rng.uniform(-UNSURE, UNSURE, 2)), *ship[2:4]
            row[4:7] = rng.uniform(0.5, 1), 1, 0
            row[7:] = 0.5 * np.cos(2 * ship[4]), 0.5 * np.sin(2 * ship[4])
        return found


def ground(path: Path, height: int, width: int) -> Path:
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 2, "dtype": "uint8", "crs": "EPSG:32633",
               "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.stack([columns, rows]).astype(np.uint8))
    return path


def fleet(height: int, width: int, seed: int) -> np.ndarray:
    """Ships of 16 to 26 pixels, half as wide, that lie whole in the scene."""
    ships = drawn_ships.ships(max(height, width), 40, np.random.default_rng(seed))
    ships = ships[ships[:, 2] >= 16]
    ships[:, 3] = ships[:, 2] / 2
    clear = overlaps(cornered(ships), cornered(ships)).sum(1) == 1
    ring = corners_of(ships)
    return ships[clear & ((ring >= 2) & (ring <= [width - 2, height - 2])).all((1, 2))]


@given(
    height=st.integers(TILE, 3 * TILE), width=st.integers(TILE, 3 * TILE),
    first=st.tuples(st.integers(-40, 40), st.integers(-40, 40)), seed=st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_ships_are_found_once_on_every_grid(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, first: tuple[int, int], seed: int
) -> None:
    """Also on scenes hardly larger than a tile, where tiles that are not neighbours see the same ground."""
    ships = fleet(height, width, seed)
    path = ground(tmp_path_factory.mktemp("s") / "s.tif", height, width)
    with SceneReader(path, SPEC, bands=["red", "nir"]) as opened:
        for grid in ((0, 0), first):
            opened.first_pixel = grid
            found = detect_scene(Unsure(ships), opened, TURNED, OVERLAP)  # type: ignore[arg-type]
            assert len(found) == len(ships)
            shares = overlaps(cornered(ships), places(found, 6))
            assert not len(ships) or sorted(shares.argmax(1).tolist()) == list(range(len(ships)))


def seen(place: tuple[int, int], boxes: list[list[float]], rows: Axis, cols: Axis) -> SeenBoxes:
    return SeenBoxes.of(np.array(boxes, np.float32).reshape(-1, 6), np.zeros((TILE, TILE), bool), place, rows, cols)


def test_tiles_that_are_no_neighbours_see_one_object() -> None:
    """Three tiles begin at 0, 1 and 2: the own part of the middle one is a pixel wide."""
    rows, cols = Axis([0], TILE, TILE), Axis(tile_starts(TILE + 2, TILE, 16, -1), TILE, TILE + 2)
    assert cols.starts == [0, 1, 2]
    parts = [
        seen((0, 0), [[28, 9, 36.8, 13, 0.9, 0]], rows, cols),
        seen((0, 2), [[27.5, 9, 36.3, 13, 0.8, 0]], rows, cols),
    ]
    found = merged(SeenBoxes.together(parts), rows, cols, 0.45)
    assert found[:, 4].tolist() == [np.float32(0.9)]


def test_what_two_tiles_leave_to_each_other_is_taken_back_and_what_an_edge_cuts_is_not() -> None:
    rows, cols = Axis([0], TILE, TILE), Axis([0, 32], TILE, 96)
    left_sees, right_sees = [44.2, 4, 52.2, 8, 0.7, 0], [11.8, 4, 19.8, 8, 0.9, 0]
    parts = [seen((0, 0), [left_sees], rows, cols), seen((0, 1), [right_sees], rows, cols)]
    found = merged(SeenBoxes.together(parts), rows, cols, 0.45)
    assert found[:, 4].tolist() == [np.float32(0.9)]
    cut, whole = [60, 4, 64, 8, 0.9, 0], [28, 4, 40, 8, 0.6, 0]
    parts = [seen((0, 0), [cut], rows, cols), seen((0, 1), [whole], rows, cols)]
    assert merged(SeenBoxes.together(parts), rows, cols, 0.45)[:, 4].tolist() == [np.float32(0.6)]
    alone = SeenBoxes.together([seen((0, 0), [left_sees], rows, cols), seen((0, 1), [], rows, cols)])
    assert not len(merged(alone, rows, cols, 0.45))
