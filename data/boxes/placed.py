"""Labelled objects on their image, by one rule for training and for judging: what lies across an image's edge is clipped there, and
what has no more than :data:`~rsedge.data.boxes.geometry.LEAST_SHARE` of its box in the image is no object of it.

Outlines on the map may cover more than one image, so those that lie elsewhere are left out. Boxes in pixels are of their image
alone: one that lies outside of it is an error of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsedge.data.boxes.files import LabelledImage
from rsedge.data.boxes.geometry import CORNERS, LEAST_SHARE, TRUTH, Floats, places, upright, within
from rsedge.data.errors import RequestError
from rsedge.data.scenes.grids import Grid


@dataclass(frozen=True)
class PlacedObjects:
    """Objects of one image.

    Attributes:
        table: (M, 5) of corners (pixels, inside the image) and class number, (M, 6) with the angle where turned ones are asked for.
        warnings: how many of the file are not among them, and why.
    """

    table: Floats
    warnings: tuple[str, ...]


def objects_on(one: LabelledImage, image: Path, grid: Grid, classes: Sequence[str], oriented: bool) -> PlacedObjects:
    """The objects of an image.

    Args:
        image: its file, for messages. grid: its size and place.
        classes: names by their number; every label is one of them.
        oriented: whether boxes may be turned; without it no box of the file is.

    Raises:
        RequestError: the file is of an image of another size, a box in pixels lies outside of it, or as
            :func:`rsedge.data.boxes.outlines.on_grid`.
    """
    size = grid.width, grid.height
    if one.size is not None and one.size != size:
        raise RequestError(
            f"{one.where}: made for an image of {one.size[0]}x{one.size[1]} pixels, {image} has {size[0]}x{size[1]}"
        )
    table = one.on(grid).table(classes, oriented)
    if one.outlines is None:
        _check_inside(one, table, image, size)
    inside, kept = within(places(table, TRUTH), (0, 0), size)
    table[:, :CORNERS] = inside[:, :CORNERS]
    return PlacedObjects(table[kept], tuple(_warnings(one, image, int(kept.sum()))))


def _check_inside(one: LabelledImage, table: Floats, image: Path, size: tuple[int, int]) -> None:
    around = upright(places(table, TRUTH))
    outside = (around[:, :2] >= np.array(size)).any(1) | (around[:, 2:] <= 0).any(1)
    if outside.any():
        x, y = around[outside][0, :2]
        raise RequestError(
            f"{one.where}: the box from {x:g}, {y:g} lies outside of {image} ({size[0]}x{size[1]} pixels)"
        )


def _warnings(one: LabelledImage, image: Path, kept: int) -> list[str]:
    found, empty = [], 0 if one.outlines is None else one.outlines.empty
    if empty:
        found.append(f"{one.where}: {empty} of {empty + len(one.labels)} objects have no outline and are left out")
    if away := len(one.labels) - kept:
        check = "" if kept else "; check that they belong together, and the file's coordinate reference system"
        found.append(
            f"{one.where}: {away} of {len(one.labels)} objects lie outside of {image}, or with no more than {LEAST_SHARE:.0%} of "
            f"their box in it, and are left out{check}"
        )
    return found
