"""Maps of features of samples: a vector at every place of a grid coarser than the input's.

Samples are split, varied and cross-validated as in :mod:`rsedge.tasks.samples`; what is known of them plays no part. Two networks
are alike as far as their vectors point the same way, place by place; places where nothing is seen do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.samples import Kind, Likeness, agreement_of_vectors
from rsedge.data.metrics.statistics import units_of
from rsedge.runtimes.session import LOGITS, VALID
from rsedge.tasks.base import Arrays, Index, Prediction
from rsedge.tasks.samples import SampleTask


class FeatureTask(SampleTask):
    """An encoder that gives maps, for heads that are fitted later."""

    output = "features"

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return "embedding"

    @property
    def bundle_fields(self) -> dict[str, Any]:
        return {"stride": self.stride}

    @property
    def labelled(self) -> bool:
        return False

    def keep(self, outputs: Arrays) -> Prediction:
        edge, step = self.spec.tile // self.stride, self.stride
        seen = outputs[VALID][0].astype(bool).reshape(edge, step, edge, step).any((1, 3))
        return np.where(seen, outputs[LOGITS][0], np.float32(np.nan)).astype(np.float32)

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        """Mean cosine over places, 0 to 1."""
        value = agreement_of_vectors(_likeness(found, reference, np.zeros(len(found), np.intp))).value
        return 1.0 if value is None else value

    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        return self.agreement(found, reference)

    def comparisons_of(self, index: Index, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        return (_likeness(found, reference, units_of(self.units.at(index).of)[0]),)

    def expected_shape(self) -> tuple[int, ...]:
        edge = self.spec.tile // self.stride
        return (1, len(self.classes), edge, edge)


def _likeness(found: Prediction, reference: Prediction, unit: npt.NDArray[np.intp]) -> Likeness:
    """Maps (N, D, h, w) of two networks, place by place; of a place that neither sees there is nothing to compare."""
    one, other = (np.moveaxis(maps, 1, -1) for maps in (found, reference))
    seen = ~np.isnan(other).any(-1)
    units = np.broadcast_to(unit[:, None, None], seen.shape)
    return Likeness("teacher tokens", one[seen], other[seen], units[seen])
