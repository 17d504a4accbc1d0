"""Captions of pictures: what is compressed is the vision tower, whose image tokens a language model reads.

A tower is judged by its tokens, as embeddings are (cosine to the teacher's, token by token); what the language model makes of them
is compared in a stage of its own (:mod:`rsedge.stages.captions`), since that takes seconds per picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.samples import Kind, Likeness, agreement_of_vectors
from rsedge.data.samples.samples import Samples
from rsedge.data.scenes.splits import HELD_OUT
from rsedge.data.sets.sample_sources import CAPTIONS, load_samples
from rsedge.models.zoo import teacher_row
from rsedge.tasks.base import Index, Prediction
from rsedge.tasks.samples import SampleHeldOut, SampleTask

if TYPE_CHECKING:
    from rsedge.export.onnx.graph import Output


class CaptionTask(SampleTask):
    """Image tokens (T, D) of pictures; texts, where the samples have them, are references for captions."""

    output: Output = "tokens"

    @cached_property
    def samples(self) -> Samples:
        section = self.recipe.samples.samples
        # Pictures of any size are fitted as the towers' own pre-processing does: the middle square, resampled.
        fitted: dict[str, Any] = (
            {"tile": self.spec.tile, "fit": "resize"} if section.source.startswith(CAPTIONS) else {}
        )
        return self.drawn(load_samples(section.source, section.root, **(fitted | section.options)))

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return "embedding"

    @cached_property
    def roles(self) -> dict[str, Index]:
        """As of all samples, but with as many held-out pictures in each role as captions are asked of."""
        rng, wanted = np.random.default_rng([self.recipe.seed, 10]), self.recipe.texts.images
        picks: dict[str, Index] = {
            role: np.sort(rng.permutation(index)[:wanted]) for role, index in super().roles.items() if role in HELD_OUT
        }
        return {**super().roles, **picks}

    @property
    def labelled(self) -> bool:
        return self.samples.texts is not None

    def references(self, held_out: SampleHeldOut) -> list[tuple[str, ...]] | None:
        texts = self.samples.texts
        return None if texts is None else [texts[i] for i in held_out.index]

    def _known(self, index: Index) -> tuple[npt.NDArray[np.bool_], list[str]]:
        return np.ones(len(index), bool), []

    def expected_shape(self) -> tuple[int, ...]:
        return (1, len(self.classes), int(teacher_row(self.recipe.teacher.name).arch["width"]))

    def agreement(self, found: Prediction, reference: Prediction) -> float:
        """Mean cosine of image tokens."""
        value = agreement_of_vectors(_alike(found, reference, np.zeros(len(found)))).value
        return 1.0 if value is None else value

    def view_likeness(self, found: Prediction, reference: Prediction) -> float:
        return self.agreement(found, reference)

    def comparisons_of(self, index: Index, found: Prediction, reference: Prediction) -> Sequence[Comparison]:
        return (_alike(found, reference, self.units.at(index).of),)


def _alike(found: Prediction, reference: Prediction, groups: npt.NDArray[Any]) -> Likeness:
    """Image tokens (N, T, D) beside the teacher's."""
    return Likeness("teacher tokens", found, reference, groups)
