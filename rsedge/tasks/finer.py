"""Super-resolution: images on a grid a whole number of times finer than the input's.

Samples are split, varied and cross-validated as in :mod:`rsedge.tasks.samples`. A network gives bands of its contract in normalised
units; what is kept, compared and written are physical values, NaN where the input is nodata.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import StageContext
from rsedge.data.errors import RequestError
from rsedge.data.image_bands import ImageBands
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.images import ImageComparison, ssim
from rsedge.data.metrics.samples import Kind
from rsedge.data.samples.views import MadeView
from rsedge.reports.assets import ImageAsset
from rsedge.results.data import Data
from rsedge.runtimes.session import LOGITS, VALID
from rsedge.tasks.base import Arrays, Index, Prediction
from rsedge.tasks.colours import rgb
from rsedge.tasks.pictures import LABEL, first, named
from rsedge.tasks.samples import SampleHeldOut, SampleTask

Floats = npt.NDArray[np.float32]


class FinerTask(SampleTask):
    """Super-resolution; with ``finer`` 1 any network from image to image."""

    output = "image"

    @cached_property
    def bands(self) -> ImageBands:
        return ImageBands.of(self.spec, self.classes)

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return "image"

    @property
    def bundle_fields(self) -> dict[str, Any]:
        return {"finer": self.finer}

    @cached_property
    def truth(self) -> Floats | None:
        """Finer images (N, K, k T, k T) of the teacher's bands in physical values, NaN where unknown; None without any.

        Raises:
            RequestError: the samples' labels are no finer images, of another grid, or lack a band.
        """
        labels, edge = self.samples.labels, self.finer * self.spec.tile
        if labels is None:
            return None
        where = f"data.samples: '{self.samples.name}'"
        if labels.ndim != 4 or labels.shape[2:] != (edge, edge):
            raise RequestError(
                f"{where} has labels {labels.shape[1:]} per sample; the teacher's images are {self.finer} times finer than its "
                f"tile of {self.spec.tile}: (K, {edge}, {edge})"
            )
        missing = [name for name in self.bands.names if name not in self.samples.classes]
        if missing:
            raise RequestError(
                f"{where}: the finer images have bands {', '.join(self.samples.classes)}, not '{missing[0]}', which the teacher "
                "gives; name their bands under options.finer_bands"
            )
        picks = [self.samples.classes.index(name) for name in self.bands.names]
        return np.asarray(labels[:, picks], dtype=np.float32)

    def _known(self, index: Index) -> tuple[npt.NDArray[np.bool_], list[str]]:
        assert self.truth is not None
        return np.asarray(np.isfinite(self.truth[index]).any((1, 2, 3))), []

    def data_stage(self, context: StageContext) -> Data:
        _ = self.truth  # Wrong labels are said before any work.
        return super().data_stage(context)

    def label_targets(self) -> Floats | None:
        truth = self.truth
        return None if truth is None else self.bands.normalised(truth)

    def label_follows(self, view: MadeView) -> bool:
        """Gains and noise of the input are no part of the finer image."""
        return view.plain

    def keep(self, outputs: Arrays) -> Prediction:
        image = self.keep_logits(outputs[LOGITS][0])
        valid = outputs[VALID][0].astype(bool).repeat(self.finer, 0).repeat(self.finer, 1)
        return np.where(valid, image, np.float32(np.nan))

    def keep_logits(self, logits: npt.NDArray[np.float32]) -> Prediction:
        """What is no number is wrong by the whole range: only missing input is NaN, which no figure counts."""
        image = self.bands.physical(logits)
        return np.where(np.isfinite(image), image, np.float32(-self.bands.peak))

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        """SSIM of two networks' images, at least 0; 0 where they have nothing to be compared by."""
        alike = ssim(found, reference, self.bands.peak)
        return float(np.clip(np.nanmean(alike), 0, 1)) if np.isfinite(alike).any() else 0.0

    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        return self.agreement(found, reference)

    def comparisons_of(self, index: Index, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        """Of the finer images where they are known, and of the teacher's."""
        peak, groups = self.bands.peak, self.units.at(index).of
        alike = ImageComparison("teacher image", found, reference, peak, groups)
        if self.truth is None:
            return (alike,)
        return alike, ImageComparison("image", found, self.truth[index], peak, groups)

    def shown(self, test: SampleHeldOut, teacher: Prediction) -> Arrays:
        index = first(-np.nanstd(teacher, axis=(1, 2, 3)))
        known = [] if self.truth is None else [self.truth[test.index[i]] for i in index]
        return named(index, test, teacher, known)

    def pictures(self, kept: Arrays, student: Prediction) -> dict[str, list[Any]]:
        assets = []
        for i, (number, dn) in enumerate(zip(kept["index"], kept["dn"], strict=True)):
            images = {"teacher": kept["teacher"][i], "student": student[i]}
            images |= {"finer scene": kept[f"{LABEL}{i}"]} if f"{LABEL}{i}" in kept else {}
            given = rgb(self.spec.to_physical(dn), self.spec.band_names)
            shown = {
                name: rgb(image, self.bands.names, like=self.spec.to_physical(dn)) for name, image in images.items()
            }
            assets.append(ImageAsset(f"test sample {number + 1}", {"input": given, **shown}))
        return {"images": assets}

    def expected_shape(self) -> tuple[int, ...]:
        edge = self.finer * self.spec.tile
        return (1, len(self.classes), edge, edge)
