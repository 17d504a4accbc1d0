"""Whole scenes for training: from a file by the reader that flies, or by name, in a contract's bands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.band_names import sensor_warnings
from rsedge.data.band_values import band_values, saturation
from rsedge.data.bands import InputSpec
from rsedge.data.files import sha256_file
from rsedge.data.objects import at_hand
from rsedge.data.paged import zeros
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.scene import Scene
from rsedge.data.scenes.whereabouts import bounds_of, taken_at
from rsedge.data.sets.scene_sources import load_scene
from rsedge.data.wording import Wording

_ROWS = 256


def read_scene(path: str | Path, spec: InputSpec, *, training: bool, **options: Any) -> Scene:
    """A GeoTIFF in the contract's bands, as physical values of the very DN that flight would read.

    Args:
        training: ground to make views of (see :class:`SceneReader`); may lack bands.
        options: of :class:`SceneReader`: bands, sensor, scale, offset, nodata, nan_nodata, any_gsd, gsd_m.

    Raises:
        RequestError: as :class:`SceneReader`, in the words of a recipe; unknown GSD too. MissingCapability: no room for it.
    """
    path = at_hand(Path(path))
    with SceneReader(path, spec, training=training, wording=Wording.RECIPE, **options) as reader:
        found, size = reader.spec, (reader.height, reader.width)
        image = zeros((found.channels, *size), np.float32)
        valid = np.zeros(size, dtype=np.bool_)
        for row in range(0, size[0], _ROWS):
            rows = slice(row, min(row + _ROWS, size[0]))
            dn, missing = reader.read(row, 0, rows.stop - row, size[1])
            image[:, rows] = np.where(missing, 0, found.to_physical(dn))
            valid[rows] = ~missing
        assert reader.gsd_m is not None
        return Scene(path.stem, image, valid, found.band_names, reader.gsd_m, sha256_file(path),
                     values=tuple(reader.values), warnings=tuple(reader.warnings), taken=taken_at(path),
                     bounds=bounds_of(reader.crs, reader.transform, *size))  # fmt: skip


def named_scene(name: str, spec: InputSpec) -> Scene:
    """A scene of :func:`rsedge.data.sets.scene_sources.load_scene`; its bands have the contract's names where it has them.

    Raises:
        RequestError: unknown, or more than half of a band does not fit into the contract's digital numbers.
        MissingCapability: not on this machine.
    """
    scene = load_scene(name)
    own = dict(zip(spec.common_names, spec.band_names, strict=True))
    other = sensor_warnings(f"scene '{name}'", scene.sensor, spec.sensor)
    scene = replace(scene, bands=tuple(own.get(b, b) for b in scene.bands), warnings=(*scene.warnings, *other))
    found = spec.without(spec.missing(scene.bands))
    image = scene.select(found.band_names)
    if image is None or not scene.valid.any():
        return scene
    values = band_values(image[:, scene.valid], found)
    warnings = saturation(f"scene '{name}'", values, "the teacher's scale: is of other data")
    return replace(scene, values=tuple(values), warnings=(*scene.warnings, *warnings))
