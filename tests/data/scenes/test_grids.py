"""Places of pixels: one type of transform, whatever a scene is read by, and grids of other steps over the same ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.data.scenes.grids import FinerGrid, check_same_grid
from rsedge.data.scenes.kinds import kind_of
from rsedge.data.scenes.raster_file import Transform, pixel_to_map

PLACE = Transform(20.0, 0.0, 5e5, 0.0, -20.0, 5.4e6)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 100), st.floats(-80, 80), st.floats(0.2, 8), st.floats(-50, 50), st.floats(-50, 50))
def test_transforms_do_what_affine_does(size: float, turn: float, factor: float, col: float, row: float) -> None:
    theirs = Affine.translation(5e5, 5.4e6) * Affine.rotation(turn) * Affine.scale(size, -size)
    ours = Transform(*list(theirs)[:6])
    assert np.allclose(ours.scaled(factor), list(theirs * Affine.scale(factor))[:6])
    assert np.allclose(ours.shifted(col, row), list(theirs * Affine.translation(col, row))[:6])
    assert np.allclose(ours.to_pixel(*pixel_to_map(ours, col, row)), (col, row), atol=1e-5)


def test_a_finer_grid_lies_over_scenes_of_every_kind(tmp_path: Path) -> None:
    """A scene without GDAL has no ``Affine``, by which the finer grid was multiplied."""
    coarse, fine = np.ones((1, 4, 5), np.uint8), np.ones((1, 8, 10), np.uint8)
    for name, image, place in (("coarse", coarse, PLACE), ("fine", fine, PLACE.scaled(0.5))):
        np.savez(tmp_path / f"{name}.npz", image=image, crs="EPSG:32632", transform=list(place))
        profile = {"driver": "GTiff", "height": image.shape[1], "width": image.shape[2], "count": 1, "dtype": "uint8"}
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", **profile, crs="EPSG:32632", transform=Affine(*place)
        ) as file:
            file.write(image)
    opened = {path.name: kind_of(path).open(path) for path in tmp_path.iterdir()}
    for kind in ("npz", "tif"):
        over = FinerGrid.over(opened[f"coarse.{kind}"], 2)
        assert over.transform == PLACE.scaled(0.5) and (over.height, over.width) == (8, 10)
        for other in ("fine.npz", "fine.tif"):
            check_same_grid(opened[other], tmp_path / other, over, "the finer scene")
        with pytest.raises(RequestError, match="4x5 pixels"):
            check_same_grid(opened["coarse.npz"], tmp_path / "coarse.npz", over, "the finer scene")
    for one in opened.values():
        one.close()
