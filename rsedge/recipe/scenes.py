"""The scenes that a recipe names, read in the teacher's contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rsedge.data.bands import InputSpec
from rsedge.data.objects import at_hand
from rsedge.data.scenes.label_files import LabelReader
from rsedge.data.scenes.raster import open_raster
from rsedge.data.scenes.scene import Scene
from rsedge.data.sets.scene_files import named_scene, read_scene
from rsedge.data.wording import Wording
from rsedge.recipe.data import SceneSection, TestSection

READING = ("bands", "sensor", "scale", "offset", "nodata", "nan_nodata", "any_gsd", "gsd_m")
"""Fields of a scene section that say how its file is read; :class:`rsedge.data.scenes.geotiff.SceneReader` has them as options."""


def section_scene(section: SceneSection, spec: InputSpec, classes: Sequence[str]) -> Scene:
    """One scene with the labels that its section names.

    Raises:
        RequestError: it cannot be read in the contract, or its labels do not fit.
        MissingCapability: a named scene is not on this machine.
    """
    if section.source is not None:
        return named_scene(section.source, spec)
    assert section.path is not None
    reading = section.model_dump(include=set(READING))
    if not isinstance(section, TestSection):
        return read_scene(section.path, spec, training=True, **reading)
    scene = read_scene(section.path, spec, training=False, **reading)
    given = section.label_file
    if given is None:
        return scene
    with (
        open_raster(at_hand(section.path)) as grid,
        LabelReader(at_hand(given.path), grid, classes, mapping=given.map, wording=Wording.RECIPE) as labels,
    ):
        return replace(scene, labels=labels.whole(), warnings=(*scene.warnings, *labels.warnings))
