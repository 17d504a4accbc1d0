"""Class maps of samples: chips with a class per pixel, and change between two dates (layout TCHW).

Samples are split, varied and cross-validated as in :mod:`rsedge.task_samples`; outputs are kept and judged as class maps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics import confusion_matrix, f1, kappa, kappa_interval, summary
from rsedge.data.sample_metrics import Kind
from rsedge.judging import NODATA_CLASS, kept_classes
from rsedge.recipe import Recipe
from rsedge.task_samples import Index, SampleTask
from rsedge.tasks import Arrays, Kept


class MapTask(SampleTask):
    """Segmentation of samples, and change detection, which is segmentation of two dates."""

    output = "map"
    code = (*SampleTask.code, "rsedge.judging", "rsedge.task_maps")

    def __init__(self, recipe: Recipe, spec: InputSpec, classes: tuple[str, ...]) -> None:
        super().__init__(recipe, spec, classes, "segmentation")

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

    def data_stage(self, context: Any) -> dict[str, Any]:
        _ = self.truth  # Wrong labels are said before any work.
        return super().data_stage(context)

    def keep(self, outputs: Arrays) -> Kept:
        return kept_classes(outputs)

    def keep_logits(self, logits: npt.NDArray[np.float32]) -> Kept:
        return logits.argmax(1).astype(np.uint8)

    def agreement(self, found: Kept, reference: Kept) -> float:
        """Share of the pixels that both networks see on which they agree."""
        seen = (reference != NODATA_CLASS) & (found != NODATA_CLASS)
        return float((found[seen] == reference[seen]).mean()) if seen.any() else 1.0

    def view_likeness(self, found: Kept, reference: Kept) -> float:
        return kappa(confusion_matrix(reference, found, len(self.classes)))

    def metrics_of(self, index: Index, found: Kept, reference: Kept) -> dict[str, Any]:
        """Kappa with its 95 % interval over groups, accuracy, IoU, F1 (of the second of two classes, else the mean)."""
        truth = self.truth
        if truth is None:
            return {}
        groups, labels = self.groups[index], truth[index]
        tables = [
            confusion_matrix(labels[groups == g], found[groups == g], len(self.classes)) for g in np.unique(groups)
        ]
        counted = [t for t in tables if t.any()]
        total = np.sum(tables, axis=0)
        interval = kappa_interval(counted) if len(counted) > 1 else None
        record = summary(total, self.classes) | {"kappa_interval": list(interval) if interval else None}
        per_class = f1(total)
        return record | {"f1": float(per_class[1] if len(per_class) == 2 else np.nanmean(per_class))}
