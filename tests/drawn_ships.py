"""Ships drawn on noise or a picture: what turned boxes are learned and judged on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin

from rsedge.data.boxes.oriented import corners_of, overlaps_of

Boxes = npt.NDArray[np.float64]
LABEL = "ship"


@dataclass(frozen=True)
class Ground:
    """What ships are drawn on: places of a picture between two shares of its width."""

    picture: Path
    low: float = 0.0
    high: float = 1.0


def texture(edge: int, rng: np.random.Generator, ground: Ground | None = None) -> npt.NDArray[np.float64]:
    """(3, edge, edge) from 0 to 1: noise at several scales, or a place of a picture, darker."""
    if ground is not None:
        with rasterio.open(ground.picture) as file:
            y = int(rng.integers(0, file.height - edge + 1))
            x = int(rng.integers(int(ground.low * file.width), int(ground.high * file.width) - edge + 1))
            return 0.7 * file.read([1, 2, 3])[:, y : y + edge, x : x + edge] / 255
    image = np.zeros((3, edge, edge))
    for step in (4, 16, 64):
        coarse = rng.normal(size=(3, edge // step + 1, edge // step + 1))
        image += coarse.repeat(step, 1).repeat(step, 2)[:, :edge, :edge]
    return (0.3 + 0.05 * image).clip(0, 1)


def ships(edge: int, count: int, rng: np.random.Generator) -> Boxes:
    """Turned boxes (n, 5) that do not touch, up to ``count`` of them: three to five times as long as they are wide."""
    found: list[npt.NDArray[np.float64]] = []
    for _ in range(count * 4):
        length = rng.uniform(12, 26)
        ship = np.array([*rng.uniform(14, edge - 14, 2), length, length / rng.uniform(3, 5), rng.uniform(-1.57, 1.57)])
        wide = ship + np.array([0, 0, 4, 4, 0])
        if not found or overlaps_of(np.array(found), wide[None]).max() == 0:
            found.append(ship)
        if len(found) == count:
            break
    return np.array(found)


def scene(folder: Path, name: str, edge: int, count: int, seed: int, ground: Ground | None = None) -> Boxes:
    """Writes ``name.tif`` and DOTA's lines ``name.txt``: hulls with a pointed bow, a bright deck and a wake behind each."""
    rng = np.random.default_rng(seed)
    image, boxes = texture(edge, rng, ground), ships(edge, count, rng)
    rows, columns = np.mgrid[:edge, :edge] + 0.5
    for x, y, length, width, angle in boxes:
        turn = angle + np.pi * rng.integers(2)
        along = (columns - x) * np.cos(turn) - (rows - y) * np.sin(turn)
        across = (columns - x) * np.sin(turn) + (rows - y) * np.cos(turn)
        bow = ((length / 2 - along) / (0.25 * length)).clip(0, 1) ** 0.5
        hull = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2 * bow)
        wake = (along < -length / 2) & (along > -1.2 * length) & (np.abs(across) < width / 2)
        image[:, wake] += 0.06
        image[:, hull] = rng.uniform(0.45, 0.7, (3, 1))
        image[:, hull & (np.abs(along + 0.2 * length) < 0.12 * length)] = 0.9
    values = (255 * (image + 0.02 * rng.normal(size=image.shape)).clip(0, 1)).astype(np.uint8)
    profile = {"driver": "GTiff", "height": edge, "width": edge, "count": 3, "dtype": "uint8", "photometric": "RGB",
               "crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 0.5, 0.5)}  # fmt: skip
    with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
        file.write(values)
    lines = [" ".join(f"{v:.2f}" for v in ring.ravel()) + f" {LABEL} 0\n" for ring in corners_of(boxes)]
    (folder / f"{name}.txt").write_text("".join(lines))
    return boxes
