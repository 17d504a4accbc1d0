"""A bundle's predictions against a label raster on the same grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics.confusion import Confusion
from rsedge.data.metrics.figures import record_of
from rsedge.data.scenes.label_files import LabelMap, LabelReader
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.scene import predict_rows
from rsedge.runtimes.inference.tiles import Progress, Scene
from rsedge.runtimes.session import Session

_MAX_BLOCKS = 4096
_LEAST_BLOCK = 64


def evaluate_scene(
    session: Session,
    reader: Scene,
    labels: str | Path,
    classes: Sequence[str],
    overlap: int | None = None,
    ignore: int | None = NODATA_CLASS,
    mapping: LabelMap | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs a scene and compares it with its labels.

    Args:
        labels: one band of class numbers (0 .. K-1) on the scene's grid. Pixels with the file's nodata value or with
            ``ignore`` do not count, nor do pixels where the scene is nodata.
        mapping: file value -> class name, number or ``ignore``, where the file holds other values.

    Returns:
        Figures and details of a :class:`~rsedge.data.metrics.confusion.Confusion`, and ``classes``, ``block_pixels`` (edge),
        ``ignored_pixels``, ``nodata_pixels``, ``label_warnings``.

    Raises:
        RequestError: labels on another grid, with other values than classes, or all ignored.
    """
    with LabelReader(labels, reader, classes, mapping=mapping, ignore=ignore) as truth:
        edge = block_edge(reader.height, reader.width)
        tally = _Tally(len(classes), reader.width, edge)
        for rows in predict_rows(session, reader, overlap, progress):
            tally.add(rows.start, truth.read(rows.start, len(rows.classes)), rows.classes)
    blocks = tally.blocks()
    if not blocks:
        raise RequestError(f"{labels}: no pixel has both a label and a prediction")
    return {
        **record_of(Confusion("map", np.stack(blocks), classes)),
        "classes": list(classes),
        "block_pixels": edge,
        "ignored_pixels": tally.ignored,
        "nodata_pixels": tally.nodata,
        "label_warnings": list(truth.warnings),
    }


def block_edge(height: int, width: int) -> int:
    """Edge (pixels) of the bootstrap's blocks: 64, or more where that would make over 4096 blocks."""
    return max(_LEAST_BLOCK, _LEAST_BLOCK * math.ceil(math.sqrt(height * width / _MAX_BLOCKS) / _LEAST_BLOCK))


class _Tally:
    """Confusion counts per spatial block."""

    def __init__(self, classes: int, width: int, edge: int) -> None:
        self.classes, self.edge = classes, edge
        self.columns = -(-width // edge)
        self.ignored = self.nodata = 0
        self._counts: dict[int, npt.NDArray[np.int64]] = {}

    def add(self, start: int, labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.uint8]) -> None:
        k = self.classes
        self.ignored += int((labels < 0).sum())
        self.nodata += int(((labels >= 0) & (predictions == NODATA_CLASS)).sum())
        keep = (labels >= 0) & (predictions != NODATA_CLASS)
        if (predictions[keep] >= k).any():
            raise RequestError(f"the model gives class {int(predictions[keep].max())}, its bundle names {k} (from 0)")
        column = np.arange(labels.shape[1]) // self.edge
        block_rows = (start + np.arange(len(labels))) // self.edge
        index = (column[None, :] * k + labels) * k + predictions.astype(np.int64)
        for block_row in np.unique(block_rows):
            here = block_rows == block_row
            counts = np.bincount(index[here][keep[here]], minlength=self.columns * k * k)
            held = self._counts.setdefault(int(block_row), np.zeros(self.columns * k * k, dtype=np.int64))
            held += counts

    def blocks(self) -> list[npt.NDArray[np.int64]]:
        """One (K, K) matrix per block that has a counted pixel."""
        k = self.classes
        every = [c.reshape(self.columns, k, k) for _, c in sorted(self._counts.items())]
        return [block for row in every for block in row if block.any()]
