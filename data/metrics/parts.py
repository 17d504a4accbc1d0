"""How networks of several parts do: each part's own tensors against the teacher's, and what they give together.

Masks are told by their intersection over union with the teacher's, queries by the rank of the item that belongs to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.statistics import Floats, Statistic, of_sums, ratio, summed, units_of

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class PartComparison(Comparison):
    """A part's outputs on N samples against the teacher's.

    Attributes:
        error: (N, O) squared difference of each of O outputs, summed over its values.
        spread: (N, O) as much, of the teacher's values from their mean over the samples.
        groups: (N,) what each sample belongs to, which the bootstrap draws.
    """

    error: Floats
    spread: Floats
    groups: npt.NDArray[Any]

    @property
    def details(self) -> dict[str, Any]:
        """``n`` (samples)."""
        return {"n": len(self.error)}


def part_comparison(
    found: Sequence[Arrays], reference: Sequence[Arrays], outputs: Sequence[str], groups: npt.NDArray[Any]
) -> PartComparison:
    """Outputs of a part, sample by sample, beside the teacher's; an output that never varies is held against its own size."""
    error, spread = np.zeros((2, len(reference), len(outputs)))
    for o, name in enumerate(outputs):
        mean = sum(r[name].astype(np.float64) for r in reference) / max(len(reference), 1)
        flat = not any((r[name] - mean).any() for r in reference)
        for i, (own, wanted) in enumerate(zip(found, reference, strict=True)):
            truth = wanted[name].astype(np.float64)
            error[i, o] = ((own[name] - truth) ** 2).sum()
            spread[i, o] = ((truth if flat else truth - mean) ** 2).sum()
    return PartComparison("teacher part", error, spread, groups)


def agreement_of_parts(answers: PartComparison) -> Statistic:
    """Share of the variance between samples that is explained, at least 0, the mean over the outputs."""
    unit, units = units_of(answers.groups)
    sums = summed(np.concatenate([answers.error, answers.spread], 1), unit, units)
    outputs = answers.error.shape[1]

    def explained(s: Floats) -> Floats:
        lost = np.divide(
            s[:, :outputs], s[:, outputs:], out=(s[:, :outputs] > 0).astype(float), where=s[:, outputs:] > 0
        )
        return np.asarray(np.clip(1 - lost, 0, 1).mean(1))

    return of_sums(sums, explained, 0.0, 1.0)


@dataclass(frozen=True)
class MaskComparison(Comparison):
    """Masks of N samples, P each, against the teacher's: pixels in both, and in either, (N, P); ``groups`` (N,) are drawn."""

    both: Floats
    either: Floats
    groups: npt.NDArray[Any]

    @property
    def details(self) -> dict[str, Any]:
        """``masks``: how many there are; ``empty``: of these, how many both networks leave empty."""
        return {"masks": int(self.both.size), "empty": int((self.either == 0).sum())}


def mask_comparison(found: npt.NDArray[Any], reference: npt.NDArray[Any], groups: npt.NDArray[Any]) -> MaskComparison:
    """Mask logits (N, P, H, W), of which what is above 0 is the mask."""
    own, wanted = found > 0, reference > 0
    return MaskComparison(
        "teacher masks", (own & wanted).sum((2, 3)).astype(float), (own | wanted).sum((2, 3)).astype(float), groups
    )


def agreement_of_masks(masks: MaskComparison) -> Statistic:
    """Mean intersection over union of the masks; those that both leave empty do not count."""
    unit, units = units_of(masks.groups)
    there = masks.either > 0
    shares = np.divide(masks.both, masks.either, out=np.zeros_like(masks.both), where=there)
    return ratio(summed(shares.sum(1), unit, units), summed(there.sum(1), unit, units))


@dataclass(frozen=True)
class RankComparison(Comparison):
    """N queries against N items, of which the i-th belong together, beside the teacher's.

    Attributes:
        scores, reference: (N, N) cosines of each query with each item, of a network and of the teacher.
    """

    scores: Floats
    reference: Floats
    groups: npt.NDArray[Any]

    @cached_property
    def ranks(self) -> Floats:
        """(N,) place of each query's own item, from 1; of equal scores the worst place counts."""
        own = np.diagonal(self.scores)[:, None]
        return np.asarray((self.scores >= own).sum(1), dtype=np.float64)

    @property
    def details(self) -> dict[str, Any]:
        """``n`` (queries), ``items`` and ``median_rank``."""
        return {"n": len(self.scores), "items": self.scores.shape[1], "median_rank": float(np.median(self.ranks))}


def rank_comparisons(
    found: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    reference: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    groups: npt.NDArray[Any],
) -> tuple[RankComparison, RankComparison]:
    """Vectors of queries and of items, (N, D) each, as what is compared with the pairs and with the teacher's ranks."""
    scores, wanted = (_cosines(*pair) for pair in (found, reference))
    return RankComparison("pairs", scores, wanted, groups), RankComparison("teacher ranks", scores, wanted, groups)


def _cosines(queries: npt.NDArray[Any], items: npt.NDArray[Any]) -> Floats:
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
            for x in (queries.astype(np.float64), items.astype(np.float64)))  # fmt: skip
    return np.asarray(a @ b.T)


def recall1_statistic(ranks: RankComparison) -> Statistic:
    """Share of the queries whose own item comes first."""
    return _mean(ranks, (ranks.ranks == 1).astype(float))


def mrr_statistic(ranks: RankComparison) -> Statistic:
    """Mean of one over the rank of each query's own item (Voorhees 1999)."""
    return _mean(ranks, 1 / ranks.ranks)


def agreement_of_ranks(ranks: RankComparison) -> Statistic:
    """Share of the queries for which the same item comes first as with the teacher."""
    return _mean(ranks, (ranks.scores.argmax(1) == ranks.reference.argmax(1)).astype(float))


def _mean(ranks: RankComparison, values: Floats) -> Statistic:
    unit, units = units_of(ranks.groups)
    return ratio(summed(values, unit, units), summed(np.ones(len(values)), unit, units))
