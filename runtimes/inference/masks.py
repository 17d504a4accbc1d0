"""Masks of prompts on a scene: a tile around each, encoded once for all prompts that lie in it, its masks put back on the grid."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import write_bytes
from rsedge.data.scenes.kinds import files_read
from rsedge.data.scenes.raster import bounded_cache, degrees, gdal_errors
from rsedge.data.scenes.raster_file import NO_PLACE
from rsedge.data.scenes.whereabouts import bounds_of
from rsedge.runtimes.bundle.whole import OpenWhole
from rsedge.runtimes.inference.enlarging import enlarged
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.prompts import Prompt, filled
from rsedge.runtimes.inference.raster_out import GEOTIFF, writing_rows
from rsedge.runtimes.inference.style import PLAIN, Style
from rsedge.runtimes.inference.tiles import Progress, Scene
from rsedge.runtimes.session import INPUT, Array
from rsedge.runtimes.wholes.base import chained
from rsedge.runtimes.wholes.masks import MASKS, QUALITY, PromptedMasks

POINTS, LABELS = "points", "labels"
MARGIN = 8
"""A prompt joins the tile of another where it lies at least a part of so many of the tile away from its edge."""
VECTORS = (".geojson", ".json")
_NO_DEGREES = "{}: its coordinate reference system has no longitude and latitude there; write a map (.tif)"
_ROWS = 256
_DIGITS = 7


@dataclass(frozen=True)
class Mask:
    """One prompt's mask.

    Attributes:
        seen: (h, w) whether a pixel belongs to the object, from ``row`` and ``col`` of the scene.
        quality: as the network judges its own mask; NaN where it does not.
    """

    prompt: Prompt
    row: int
    col: int
    seen: npt.NDArray[np.bool_]
    quality: float


def masks_of(
    whole: OpenWhole, scene: Scene, prompts: Sequence[Prompt], progress: Progress | None = None
) -> Iterator[Mask]:
    """A mask for every prompt, tile by tile.

    Raises:
        RequestError: the bundle takes no points, or a prompt has more than it takes, or is larger than a tile.
        IntegrityError: the parts give NaN or infinity.
    """
    if not isinstance(whole.whole, PromptedMasks) or set(whole.inputs) != {INPUT, POINTS, LABELS}:
        raise RequestError(
            f"{whole.bundle.path}: takes {', '.join(whole.inputs)}, not an image with points; give samples (.npz) with these arrays"
        )
    done = 0
    with bounded_cache():
        for origin, group in tiles_of(prompts, scene, whole.bundle.input_spec.tile):
            yield from _masks_of_tile(whole, whole.whole, scene, origin, group)
            done += len(group)
            if progress is not None:
                progress(done, len(prompts))


def tiles_of(prompts: Sequence[Prompt], scene: Scene, tile: int) -> Iterator[tuple[tuple[int, int], list[Prompt]]]:
    """Tiles (row and column of their corners) with the prompts that each answers for: one around a prompt, and others well inside.

    Raises:
        RequestError: a prompt is larger than a tile.
    """
    left = list(prompts)
    while left:
        x0, y0, x1, y1 = left[0].extent
        if max(x1 - x0, y1 - y0) > tile:
            raise RequestError(f"prompt '{left[0].name}' is {max(x1 - x0, y1 - y0):.0f} pixels large, a tile {tile}")
        row, col = _corner((y0 + y1) / 2, scene.height, tile), _corner((x0 + x1) / 2, scene.width, tile)
        inside = [p is left[0] or _well_inside(p, row, col, tile) for p in left]
        yield (row, col), [p for p, there in zip(left, inside, strict=True) if there]
        left = [p for p, there in zip(left, inside, strict=True) if not there]


def _corner(middle: float, length: int, tile: int) -> int:
    return max(0, min(round(middle - tile / 2), length - tile))


def _well_inside(prompt: Prompt, row: int, col: int, tile: int) -> bool:
    x0, y0, x1, y1 = prompt.extent
    margin = tile / MARGIN
    return col + margin <= x0 and x1 <= col + tile - margin and row + margin <= y0 and y1 <= row + tile - margin


def _masks_of_tile(
    whole: OpenWhole, masks: PromptedMasks, scene: Scene, origin: tuple[int, int], prompts: Sequence[Prompt]
) -> Iterator[Mask]:
    dn, missing = _tile(scene, origin, whole.bundle.input_spec.tile)
    known = chained(whole.sessions, masks.parts[:-1], {INPUT: dn[None]})
    count, points = whole.inputs[POINTS][0][:2]
    for start in range(0, len(prompts), count):
        some = prompts[start : start + count]
        places, labels = filled(some, count, points, origin)
        types = {name: whole.inputs[name][1] for name in (POINTS, LABELS)}
        found = masks.decoded(
            whole.sessions,
            known | {POINTS: places[None].astype(types[POINTS]), LABELS: labels[None].astype(types[LABELS])},
        )
        if not np.isfinite(found[MASKS]).all():
            raise IntegrityError(f"{whole.bundle.path}: the masks hold NaN or infinity; see `rsedge verify`")
        for i, prompt in enumerate(some):
            seen = enlarged(found[MASKS][i], len(missing))[: scene.height, : scene.width] > 0
            seen &= ~missing[: seen.shape[0], : seen.shape[1]]
            quality = float(found[QUALITY].reshape(count, -1)[i, 0]) if QUALITY in found else float("nan")
            yield Mask(prompt, *origin, seen, quality)
        whole.counted()


def _tile(scene: Scene, origin: tuple[int, int], tile: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """A tile's digital numbers, continued by reflection where the scene is smaller, and what is missing or beyond it."""
    height, width = min(tile, scene.height), min(tile, scene.width)
    dn, missing = scene.read(*origin, height, width)
    pad = ((0, tile - height), (0, tile - width))
    return np.pad(dn, ((0, 0), *pad), mode="reflect"), np.pad(missing, pad, constant_values=True)


def check_output(path: Path, scene: Scene) -> None:
    """Holds the wanted file against the scene, before any work.

    Raises:
        RequestError: another suffix, the scene itself, or GeoJSON of a scene that has no longitude and latitude.
    """
    if path.suffix.lower() not in (*VECTORS, *GEOTIFF):
        raise RequestError(f"{path}: masks are written as polygons (.geojson) or as a map of prompts (.tif)")
    check_outputs([path], files_read(scene.path))
    if path.suffix.lower() not in VECTORS:
        return
    if scene.crs is None:
        raise RequestError(f"{scene.path}: {NO_PLACE}, and GeoJSON is longitude and latitude; write a map (.tif)")
    if bounds_of(scene.crs, scene.transform, scene.height, scene.width) is None:
        raise RequestError(_NO_DEGREES.format(scene.path))


def infer_masks(
    whole: OpenWhole,
    scene: Scene,
    prompts: Sequence[Prompt],
    output: Path,
    about: dict[str, Any],
    progress: Progress | None = None,
    style: Style = PLAIN,
) -> dict[str, Any]:
    """Writes the masks of all prompts: polygons with their quality, or a GeoTIFF of two bands, ``prompt`` (number, from 1; the
    mask of the highest quality where several lie) and ``quality``.

    Returns:
        ``output``, ``height``, ``width``, ``prompts`` (name, pixels and quality of each), ``seconds``.

    Raises:
        RequestError, IntegrityError: as :func:`masks_of`, :func:`check_output`. MissingCapability: the disk is full.
    """
    began = time.perf_counter()
    check_output(output, scene)
    found = list(masks_of(whole, scene, prompts, progress))
    whole.prove()
    if output.suffix.lower() in VECTORS:
        _write_polygons(output, scene, found, about)
    else:
        _write_map(output, scene, found, prompts, style)
    rows = [{"prompt": m.prompt.name, "pixels": int(m.seen.sum()), "quality": _rounded(m.quality)} for m in found]
    return {"output": str(output), "height": scene.height, "width": scene.width, "prompts": rows,
            "seconds": round(time.perf_counter() - began, 3)}  # fmt: skip


def _rounded(quality: float) -> float | None:
    return None if np.isnan(quality) else round(quality, 4)


def _write_polygons(path: Path, scene: Scene, masks: Sequence[Mask], about: dict[str, Any]) -> None:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "MultiPolygon", "coordinates": _polygons(scene, mask)},
            "properties": {
                "prompt": mask.prompt.name,
                "pixels": int(mask.seen.sum()),
                "quality": _rounded(mask.quality),
            },
        }
        for mask in masks
    ]
    content = {"type": "FeatureCollection", "features": features, "rsedge": about}
    write_bytes(path, (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _polygons(scene: Scene, mask: Mask) -> list[list[list[list[float]]]]:
    """Rings of longitude and latitude around the mask's pixels; outer ones counterclockwise, as RFC 7946 asks."""
    from affine import Affine
    from rasterio.features import shapes

    if not mask.seen.any():
        return []
    place = Affine(*scene.transform.shifted(mask.col, mask.row))
    found = []
    with gdal_errors(_NO_DEGREES.format(scene.path)):
        for geometry, _ in shapes(mask.seen.astype(np.uint8), mask=mask.seen, transform=place):
            rings = [_ring(scene, ring, outer=i == 0) for i, ring in enumerate(geometry["coordinates"])]
            found.append(rings)
    return found


def _ring(scene: Scene, ring: Sequence[tuple[float, float]], outer: bool) -> list[list[float]]:
    places = np.stack(degrees(scene.crs, *map(list, zip(*ring, strict=True))), 1)
    area = (places[:-1, 0] * places[1:, 1] - places[1:, 0] * places[:-1, 1]).sum()
    return (places if (area > 0) == outer else places[::-1]).round(_DIGITS).tolist()  # type: ignore[no-any-return]


def _write_map(path: Path, scene: Scene, masks: Sequence[Mask], prompts: Sequence[Prompt], style: Style) -> None:
    # The best one is painted last, over the others.
    order = sorted(masks, key=lambda m: -np.inf if np.isnan(m.quality) else m.quality)
    numbers = {prompt: i for i, prompt in enumerate(prompts, 1)}
    with writing_rows(path, scene, ["prompt", "quality"], 1, style) as sink:
        for top in range(0, scene.height, _ROWS):
            values = np.full((2, min(_ROWS, scene.height - top), scene.width), np.nan, np.float32)
            for mask in order:
                _paint(values, top, mask, numbers[mask.prompt])
            sink.add(values)


def _paint(values: npt.NDArray[np.float32], top: int, mask: Mask, number: int) -> None:
    """A mask's pixels in some rows of the map, which begin at ``top``."""
    first, last = max(mask.row, top), min(mask.row + len(mask.seen), top + values.shape[1])
    if first >= last:
        return
    seen = mask.seen[first - mask.row : last - mask.row]
    rows, columns = slice(first - top, last - top), slice(mask.col, mask.col + seen.shape[1])
    values[0, rows, columns][seen] = number
    values[1, rows, columns][seen] = mask.quality
