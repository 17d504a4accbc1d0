"""What kinds of work bundles do, and which option does something for which of them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from rsedge.data.errors import RequestError

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle

Work = Literal["maps", "dates", "objects", "chips", "samples", "captions", "images"]
WORKS: tuple[Work, ...] = get_args(Work)
WORK_WORDS: dict[Work, str] = {
    "maps": "class maps of scenes",
    "dates": "class maps of several dates",
    "objects": "objects in scenes",
    "chips": "one answer per chip of a scene",
    "samples": "one answer per sample",
    "captions": "captions",
    "images": "finer images of scenes",
}
_MAPS: tuple[Work, ...] = ("maps", "dates")
SCENES: tuple[Work, ...] = (*_MAPS, "objects", "images", "chips")
HEEDED: Mapping[str, tuple[Work, ...]] = {
    "probabilities": _MAPS,
    "overlap": (*_MAPS, "objects", "images"),
    "bands": SCENES,
    "sensor": SCENES,
    "scale": SCENES,
    "offset": SCENES,
    "nodata": SCENES,
    "nan_nodata": SCENES,
    "any_gsd": SCENES,
    "after": ("dates",),
    "prompt": ("captions",),
    "score": ("objects",),
    "hint": (*SCENES, "samples"),
}
"""The works for which an option does something; what is not here is heeded always."""


def work_of(bundle: Bundle, scene: Path) -> Work:
    """What a bundle does with what it is given.

    Raises:
        RequestError: samples for a bundle that takes scenes.
    """
    manifest = bundle.manifest
    layout, maps = manifest.input_spec.layout, manifest.task == "segmentation"
    if manifest.task == "captioning":
        return "captions"
    images = manifest.finer is not None
    if scene.suffix == ".npz" and (maps or images or manifest.boxes is not None):
        raise RequestError(f"{scene}: this bundle takes scenes; give a GeoTIFF")
    if scene.suffix == ".npz" or not (layout == "CHW" or (maps and layout == "TCHW")):
        return "samples"
    if manifest.boxes is not None:
        return "objects"
    if images:
        return "images"
    if not maps:
        return "chips"
    return "maps" if layout == "CHW" else "dates"
