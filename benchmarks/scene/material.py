"""Scenes to be timed, made of a real chip: as large as asked for, with or without compression and a nodata tag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from rsedge.data.bands import InputSpec
from rsedge.data.sets.scene_sources import load_scene

BLOCK = 512
KINDS: dict[str, dict[str, Any]] = {
    "deflate, nodata tag": {"compress": "deflate", "predictor": 2, "nodata": 0},
    "deflate": {"compress": "deflate", "predictor": 2},
    "uncompressed": {},
}
"""Kind of scene -> how it is stored; all in tiles, bands together."""


def make_scene(path: Path, spec: InputSpec, kind: str, edge: int, root: Path) -> Path:
    """Writes a scene of ``edge`` x ``edge`` pixels of the contract's bands: the real chip, mirrored and repeated."""
    chip = _chip(spec, root)
    height, width = chip.shape[1:]
    grid = {"driver": "GTiff", "height": edge, "width": edge, "count": len(chip), "dtype": chip.dtype, "crs": "EPSG:32632",
            "transform": from_origin(500000, 5400000, 10, 10), "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
            "bigtiff": "if_safer"}  # fmt: skip
    with rasterio.open(path, "w", **grid, **KINDS[kind]) as file:
        for row in range(0, edge, height):
            for col in range(0, edge, width):
                part = chip[:, : min(height, edge - row), : min(width, edge - col)]
                file.write(part, window=Window(col, row, part.shape[2], part.shape[1]))
        for index, name in enumerate(spec.band_names, start=1):
            file.set_band_description(index, name)
    return path


def _chip(spec: InputSpec, root: Path) -> npt.NDArray[Any]:
    """Digital numbers of the contract (C, 2 h, 2 w), without a seam where it is repeated."""
    scene = load_scene("ukis-sentinel2", root)
    bands = [scene.bands.index(name) for name in spec.band_names]
    dn = spec.to_dn(np.nan_to_num(scene.image[bands]))
    beside = np.concatenate([dn, dn[:, :, ::-1]], axis=2)
    return np.concatenate([beside, beside[:, ::-1]], axis=1)


def make_sparse(path: Path, spec: InputSpec, edge: int) -> Path:
    """Writes a scene of six bands, small on the disk: seen are a row of blocks and those on the diagonal, the others are nodata."""
    names = [*spec.band_names, *(n for n in ("swir1", "swir2", "coastal") if n not in spec.band_names)][:6]
    grid = {"driver": "GTiff", "height": edge, "width": edge, "count": len(names), "dtype": "uint16", "crs": "EPSG:32632",
            "transform": from_origin(500000, 5400000, 10, 10), "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
            "compress": "deflate", "nodata": 0, "bigtiff": "yes", "sparse_ok": True}  # fmt: skip
    rows, cols = np.indices((BLOCK, BLOCK))
    block = np.broadcast_to(
        (1000 + 100 * ((rows // 40 + cols // 40) % 7)).astype(np.uint16), (len(names), BLOCK, BLOCK)
    )
    with rasterio.open(path, "w", **grid) as file:
        for row in range(0, edge, BLOCK):
            for col in range(0, edge, BLOCK):
                if row in (col, BLOCK):
                    height, width = min(BLOCK, edge - row), min(BLOCK, edge - col)
                    file.write(block[:, :height, :width], window=Window(col, row, width, height))
        for index, name in enumerate(names, start=1):
            file.set_band_description(index, name)
    return path
