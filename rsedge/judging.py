"""How an artefact does on the validation tiles: metrics against labels, agreement with the teacher. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics import confusion_matrix, kappa_interval, summary
from rsedge.runtimes.session import LOGITS, VALID
from rsedge.stages_data import ValidationTiles

Classes = npt.NDArray[np.uint8]
NODATA_CLASS = 255


def kept_classes(outputs: Mapping[str, npt.NDArray[Any]]) -> Classes:
    """The class map (T, T) of one tile's outputs; 255 where a pixel is nodata."""
    classes = outputs[LOGITS][0].argmax(0).astype(np.uint8)
    return np.where(outputs[VALID][0].astype(bool), classes, NODATA_CLASS).astype(np.uint8)


def agreement(student: Classes, teacher: Classes, tiles: ValidationTiles) -> float:
    """Share of counted pixels on which two class maps agree."""
    keep = tiles.counted & (teacher != NODATA_CLASS)
    return float((student[keep] == teacher[keep]).mean()) if keep.any() else 1.0


def metrics(predicted: Classes, tiles: ValidationTiles, names: Sequence[str]) -> dict[str, Any]:
    """Kappa with its 95 % interval over blocks, accuracy, IoU and confusion matrix; empty without labels."""
    if not tiles.labelled:
        return {}
    labels = np.where(tiles.counted, tiles.labels, NODATA_CLASS)
    matrices = []
    for number in np.unique(tiles.block[tiles.counted]):
        here = tiles.counted & (tiles.block == number)
        matrices.append(confusion_matrix(labels[here], predicted[here], len(names)))
    record = summary(np.sum(matrices, axis=0), names)
    counted = [m for m in matrices if m.any()]
    interval = kappa_interval(counted) if len(counted) > 1 else None
    return {**record, "kappa_interval": list(interval) if interval else None, "blocks": len(counted)}
