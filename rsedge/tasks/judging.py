"""How an artefact does on the tiles of a held-out role: metrics against labels, agreement with the teacher. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.confusion import Confusion, block_tables
from rsedge.data.metrics.samples import Likeness
from rsedge.data.metrics.statistics import units_of
from rsedge.runtimes.session import LOGITS, VALID
from rsedge.tasks.scene_data import JudgedTiles

Classes = npt.NDArray[np.uint8]
NODATA_CLASS = 255


def kept_classes(outputs: Mapping[str, npt.NDArray[Any]]) -> Classes:
    """The class map (T, T) of one tile's outputs; 255 where a pixel is nodata."""
    classes = outputs[LOGITS][0].argmax(0).astype(np.uint8)
    return np.where(outputs[VALID][0].astype(bool), classes, NODATA_CLASS).astype(np.uint8)


def agreement(student: Classes, teacher: Classes, tiles: JudgedTiles) -> float:
    """Share of counted pixels on which two class maps agree."""
    keep = tiles.counted & (teacher != NODATA_CLASS)
    return float((student[keep] == teacher[keep]).mean()) if keep.any() else 1.0


def tile_comparisons(
    predicted: Classes, teacher: Classes, tiles: JudgedTiles, names: Sequence[str]
) -> tuple[Comparison, ...]:
    """What class maps are judged by, by blocks: the teacher's, and labels where there are any.

    Raises:
        RequestError: a label or a prediction is no class.
    """
    seen = tiles.counted & (teacher != NODATA_CLASS)
    alike = Likeness("teacher classes", predicted[seen], teacher[seen], tiles.block[seen])
    if not tiles.labelled:
        return (alike,)
    unit, units = units_of(tiles.block[tiles.counted])
    tables = block_tables(tiles.labels[tiles.counted], predicted[tiles.counted], unit, units, len(names))
    return alike, Confusion("map", tables, names)


def unpredicted(predicted: Classes, tiles: JudgedTiles) -> int:
    """Labelled pixels without a prediction."""
    return int((tiles.counted & (tiles.labels != NODATA_CLASS) & (predicted == NODATA_CLASS)).sum())
