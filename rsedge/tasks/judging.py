"""How an artefact does on the tiles of a held-out role: metrics against labels, agreement with the teacher. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.confusion import block_tables, summary_of_blocks, table_statistics
from rsedge.data.metrics.evidence import Statistic, ratio, summed, units_of
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


def metrics(predicted: Classes, tiles: JudgedTiles, names: Sequence[str]) -> dict[str, Any]:
    """Kappa with its 95 % interval over blocks, accuracy, IoU, confusion matrix, and labelled pixels without a prediction
    (``unpredicted``); empty without labels.

    Raises:
        RequestError: a label or a prediction is no class.
    """
    if not tiles.labelled:
        return {}
    record = summary_of_blocks(_tables(predicted, tiles, len(names)), names)
    lost = tiles.counted & (tiles.labels != NODATA_CLASS) & (predicted == NODATA_CLASS)
    return {**record, "unpredicted": int(lost.sum())}


def statistics(predicted: Classes, teacher: Classes, tiles: JudgedTiles, classes: int) -> dict[str, Statistic]:
    """What :func:`metrics` and :func:`agreement` give, by blocks, for their intervals."""
    seen = tiles.counted & (teacher != NODATA_CLASS)
    unit, units = units_of(tiles.block[seen])
    equal = summed(predicted[seen] == teacher[seen], unit, units)
    found = {"agreement": ratio(equal, summed(np.ones(len(unit)), unit, units))}
    return found | table_statistics(_tables(predicted, tiles, classes)) if tiles.labelled else found


def _tables(predicted: Classes, tiles: JudgedTiles, classes: int) -> npt.NDArray[np.int64]:
    """A confusion matrix per block that is counted."""
    unit, units = units_of(tiles.block[tiles.counted])
    return block_tables(tiles.labels[tiles.counted], predicted[tiles.counted], unit, units, classes)
