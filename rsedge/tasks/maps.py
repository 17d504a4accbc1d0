"""Class maps of samples: chips with a class per pixel, and change between two dates (layout TCHW).

Samples are split, varied and cross-validated as in :mod:`rsedge.tasks.samples`; outputs are kept and judged as class maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.confusion import Confusion, block_tables, map_likeness
from rsedge.data.metrics.samples import Kind, Likeness
from rsedge.data.metrics.statistics import units_of
from rsedge.data.turns import turned_image
from rsedge.results.data import Data
from rsedge.tasks.base import Arrays, Index, Prediction
from rsedge.tasks.judging import NODATA_CLASS, kept_classes
from rsedge.tasks.pictures import first, map_assets, named
from rsedge.tasks.samples import SampleHeldOut, SampleTask


class MapTask(SampleTask):
    """Segmentation of samples, and change detection, which is segmentation of two dates."""

    output = "map"

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return "classes"

    @property
    def truth(self) -> npt.NDArray[np.uint8] | None:
        """Labels (N, T, T), 255 where unknown; None without any.

        Raises:
            RequestError: labels are of whole samples, or of classes that the teacher does not have.
        """
        labels = self.samples.labels
        if labels is None:
            return None
        where = f"data.samples: '{self.samples.name}'"
        if labels.shape != (len(self.samples), self.spec.tile, self.spec.tile):
            raise RequestError(f"{where} has labels {labels.shape}; a class map per sample is needed")
        known = labels[labels != NODATA_CLASS]
        if known.size and int(known.max()) >= len(self.classes):
            raise RequestError(
                f"{where} has class {int(known.max())}, the teacher only {len(self.classes)} ({', '.join(self.classes)})"
            )
        return np.asarray(labels, dtype=np.uint8)

    def _known(self, index: Index) -> tuple[npt.NDArray[np.bool_], list[str]]:
        assert self.truth is not None
        truth = self.truth[index]
        there = set(np.unique(truth).tolist())
        return (truth != NODATA_CLASS).any((1, 2)), [n for i, n in enumerate(self.classes) if i not in there]

    def data_stage(self, context: Any) -> Data:
        _ = self.truth  # Wrong labels are said before any work.
        return super().data_stage(context)

    def label_targets(self) -> npt.NDArray[np.float32] | None:
        truth = self.truth
        return None if truth is None else np.where(truth == NODATA_CLASS, np.float32(-1), truth.astype(np.float32))

    def turned_label(self, label: npt.NDArray[np.float32], turn: int) -> npt.NDArray[np.float32]:
        return turned_image(label, turn)

    def keep(self, outputs: Arrays) -> Prediction:
        return kept_classes(outputs)

    def keep_logits(self, logits: npt.NDArray[np.float32]) -> Prediction:
        return logits.argmax(1).astype(np.uint8)

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        """Share of the pixels that both networks see on which they agree."""
        seen = (reference != NODATA_CLASS) & (found != NODATA_CLASS)
        return float((found[seen] == reference[seen]).mean()) if seen.any() else 1.0

    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        return map_likeness(found, reference, len(self.classes))

    def comparisons_of(self, index: Index, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        groups = self.units.at(index).of
        seen = (reference != NODATA_CLASS) & (found != NODATA_CLASS)
        alike = Likeness("teacher classes", found, reference, groups, seen)
        if self.truth is None:
            return (alike,)
        unit, units = units_of(groups)
        every = np.broadcast_to(unit[:, None, None], found.shape)
        tables = block_tables(self.truth[index], found, every, units, len(self.classes))
        return alike, Confusion("map", tables, self.classes)

    def shown(self, test: SampleHeldOut, teacher: Prediction) -> Arrays:
        """Samples in which the most pixels are of a class that is not the most frequent one."""
        truth = None if self.truth is None else self.truth[test.index]
        judged = teacher if truth is None else truth
        counts = np.stack([(judged == k).sum((1, 2)) for k in range(len(self.classes))], 1)
        index = first(counts.max(1) - counts.sum(1))
        return named(index, test, teacher, [] if truth is None else [truth[i] for i in index])

    def pictures(self, kept: Arrays, student: Prediction) -> dict[str, list[Any]]:
        return {"tiles": map_assets(self.spec, kept, student)}
