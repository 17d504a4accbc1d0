"""Named scenes: the units that the catalogue gives are those of the values."""

import numpy as np
import pytest
from rasterio.windows import Window

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.root import data_root
from rsedge.data.scenes.raster import open_raster
from rsedge.data.scenes.sentinel2 import Floor
from rsedge.data.scenes.units import Units
from rsedge.data.sets.scene_sources import CATALOGUE, SceneSource, is_here, load_scene
from rsedge.data.wording import Wording

CHIPS = [n for n, s in CATALOGUE.items() if s.path.endswith(".tif") and "Sentinel-2" in s.about]


def floor(source: SceneSource, offset: float) -> list[str]:
    """What the check of user's files says of a source, read with an offset."""
    spec = InputSpec(bands=tuple(BandSpec(name=b) for b in source.bands), tile=32, quantity="toa_reflectance")
    n = len(source.bands)
    units = Units("the catalogue", (1e-4,) * n, (offset,) * n, declared=True)
    looked = Floor(units, None, spec, "sentinel-2")
    path = data_root() / source.path
    with open_raster(path) as file:
        whole = Window(0, 0, file.width, file.height)
        values = file.read(range(1, file.count + 1), whole).reshape(file.count, -1)
    looked.look(values[:, (values != 0).all(axis=0)] * 1e-4 + offset)
    return looked.warnings(path, Wording.RECIPE)


@pytest.mark.parametrize("name", CHIPS)
def test_sentinel2_scenes_are_read_with_the_offset_that_their_values_have(name: str) -> None:
    if not is_here(name):
        pytest.skip(f"{name} is not on this machine")
    source = CATALOGUE[name]
    with_offset = source.offset == -0.1
    assert bool(floor(source, 0.0)) == with_offset, "the floor of the values shows the offset"
    scene = load_scene(name)
    image = scene.image[:, scene.valid]
    assert float((image < -0.02).mean()) < 0.01, "an offset taken off twice"
    assert 0.0 < float(np.median(image)) < 0.6


def test_the_catalogue_has_chips_of_both_kinds() -> None:
    assert {CATALOGUE[n].offset for n in CHIPS} == {0.0, -0.1}
