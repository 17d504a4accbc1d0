"""Instances of an image: a detector (RSPrompter's anchor variant) or queries (its query variant) prompt a mask decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rsedge.data.boxes.geometry import Floats, matched, suppressed
from rsedge.data.errors import RequestError
from rsedge.data.metrics.comparison import Comparison
from rsedge.data.metrics.parts import MaskComparison
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.base import Parts, Whole, WholeSettings, chained, with_batch
from rsedge.runtimes.wholes.regions import cut

MAPS = ("stride4", "stride8", "stride16", "stride32")


class MatchSettings(WholeSettings):
    """When two networks' instances are the same."""

    match: float = Field(
        default=0.5, gt=0, le=1, description="overlap of boxes from which two networks' instances are the same"
    )


class InstanceSettings(MatchSettings):
    """Thresholds of the two suppressions; defaults are RSPrompter's."""

    per_level: int = Field(default=1000, ge=1, description="proposals of each level that are looked at, the likeliest")
    proposal_overlap: float = Field(
        default=0.7, ge=0, le=1, description="of proposals that overlap by more the less likely goes"
    )
    score: float = Field(default=0.05, ge=0, le=1, description="that an instance needs")
    overlap: float = Field(
        default=0.5, ge=0, le=1, description="of boxes of one class that overlap by more the less certain goes"
    )


class QuerySettings(MatchSettings):
    """Which queries are instances; RSPrompter keeps all."""

    score: float = Field(default=0.0, ge=0, le=1, description="that an instance needs")


M = TypeVar("M", bound=MatchSettings)


class Instances(Whole[M]):
    """A sample is an ``image``; out come as many rows as the decoder takes prompts, the most certain first: ``scores`` (P,), 0
    where there is no instance, ``classes`` (P,), ``boxes`` (P, 4) as corners in pixels, ``masks`` (P, H, W), logits, and what
    else the decoder gives.

    Attributes:
        gives: parts by what they are, in the order in which they run, and what each gives at least.
    """

    task = "instances"
    gives: ClassVar[Mapping[str, frozenset[str]]]

    def __init__(self, parts: Sequence[str], settings: Mapping[str, Any]) -> None:
        super().__init__(parts, settings)
        if len(self.parts) != len(self.gives):
            raise RequestError(
                f"parts: the whole takes {', '.join(self.gives)}, in this order; found {', '.join(self.parts)}"
            )

    def inputs(self, parts: Parts) -> Tensors:
        for name, (role, given) in zip(self.parts, self.gives.items(), strict=True):
            if missing := sorted(given - set(parts[name].outputs)):
                gives = ", ".join(parts[name].outputs)
                raise RequestError(f"parts.{name}: is the {role} and must give '{missing[0]}'; gives {gives}")
        return {tensor: (shape[1:], dtype) for tensor, (shape, dtype) in parts[self.parts[0]].inputs.items()}

    def comparisons(
        self, found: Sequence[Arrays], reference: Sequence[Arrays], groups: npt.NDArray[Any]
    ) -> tuple[Comparison, ...]:
        rows = [self._pairs(own, wanted) for own, wanted in zip(found, reference, strict=True)]
        width = max(len(both) for both, _ in rows)
        both, either = (np.stack([filled(row[i], width) for row in rows]) for i in (0, 1))
        return (MaskComparison("teacher masks", both, either, groups),)

    def _pairs(self, found: Arrays, reference: Arrays) -> tuple[Floats, Floats]:
        """Pixels in both masks and in either, of each instance of the teacher and of each that only the other network has."""
        own, wanted = ({n: v[one["scores"] > 0] for n, v in one.items()} for one in (found, reference))
        taken = np.full(len(own["scores"]), -1)
        for kind in np.unique(own["classes"]):
            mine, theirs = (np.flatnonzero(one["classes"] == kind) for one in (own, wanted))
            pairs = matched(own["boxes"][mine], wanted["boxes"][theirs], self.settings.match)
            taken[mine] = np.where(pairs < 0, -1, theirs[pairs] if len(theirs) else -1)
        a, b = own["masks"] > 0, wanted["masks"] > 0
        alone = [i for i in range(len(b)) if i not in taken]
        common = [
            ((a[i] & b[j]).sum(), (a[i] | b[j]).sum()) if j >= 0 else (0, a[i].sum()) for i, j in enumerate(taken)
        ]
        both, either = zip(*common, *((0, b[j].sum()) for j in alone), strict=True) if len(a) + len(alone) else ((), ())
        return np.array(both, np.float32), np.array(either, np.float32)


class PromptedInstances(Instances[InstanceSettings]):
    """Encoder, proposer, classifier, prompter and decoder."""

    settings_of = InstanceSettings
    gives: ClassVar[Mapping[str, frozenset[str]]] = {
        "encoder": frozenset(("embedding", "features")), "proposer": frozenset((*MAPS, "proposals", "likely")),
        "classifier": frozenset(("scores", "boxes")), "prompter": frozenset(("prompts",)), "decoder": frozenset(("masks",)),
    }  # fmt: skip

    def run(self, parts: Parts, sample: Mapping[str, Array]) -> Arrays:
        encoder, proposer, classifier, prompter, decoder = self.parts
        held = chained(parts, (encoder, proposer), with_batch(sample))
        maps = [held[name][0] for name in MAPS]
        levels = levels_of(maps, held["likely"].shape[1])
        rois = self._proposals(held["proposals"][0], held["likely"][0], levels, parts[classifier].inputs["rois"][0][1])
        size = parts[classifier].inputs["regions"][0][-1]
        judged = parts[classifier]({"regions": cut(maps, rois, size)[None], "rois": rois[None]})
        _, count, _, size, _ = parts[prompter].inputs["regions"][0]
        found = self._instances(judged["scores"][0], judged["boxes"][0], with_area(rois), count)
        regions = cut(maps, found["boxes"], size)[None]
        prompts = parts[prompter]({"regions": regions})["prompts"]
        masks = {n: v[0] for n, v in parts[decoder]({"embedding": held["embedding"], "prompts": prompts}).items()}
        return {**masks, **found, "masks": masks["masks"].reshape(count, *masks["masks"].shape[-2:])}

    def _proposals(self, boxes: Floats, likely: Floats, levels: npt.NDArray[np.intp], count: int) -> Floats:
        """Of boxes (A, 4) the likeliest ``count`` that none of their level (A,) overlaps much; rows left over are empty."""
        first = [
            np.flatnonzero(levels == level)[
                np.argsort(-likely[levels == level], kind="stable")[: self.settings.per_level]
            ]
            for level in range(levels[-1] + 1)
        ]
        chosen = np.concatenate(first)
        chosen = chosen[with_area(boxes[chosen])]
        order = chosen[np.argsort(-likely[chosen], kind="stable")]
        kept = order[suppressed(boxes[order], levels[order], self.settings.proposal_overlap, count)]
        return filled(boxes[kept], count)

    def _instances(self, scores: Floats, boxes: Floats, there: npt.NDArray[np.bool_], count: int) -> Arrays:
        """At most ``count`` instances of regions' scores (R, classes + 1) and boxes (R, classes, 4)."""
        region, kind = np.nonzero((scores[:, :-1] > self.settings.score) & there[:, None])
        certain = scores[region, kind]
        order = np.argsort(-certain, kind="stable")
        region, kind = region[order], kind[order]
        kept = suppressed(boxes[region, kind], kind, self.settings.overlap, count)
        return {
            "scores": filled(certain[order][kept], count),
            "classes": filled(kind[kept], count),
            "boxes": filled(boxes[region, kind][kept], count),
        }


class QueriedInstances(Instances[QuerySettings]):
    """Encoder, prompter and decoder: a query and a class make an instance, the most certain pairs are kept.

    How certain is the class's score times the mean of the mask where it is above a half, as Mask2Former has it, at the mask's own
    resolution.
    """

    settings_of = QuerySettings
    gives: ClassVar[Mapping[str, frozenset[str]]] = {
        "encoder": frozenset(("embedding",)), "prompter": frozenset(("scores", "prompts")), "decoder": frozenset(("masks",)),
    }  # fmt: skip

    def run(self, parts: Parts, sample: Mapping[str, Array]) -> Arrays:
        held = chained(parts, self.parts, with_batch(sample))
        scores = held["scores"][0][:, :-1]
        found = {name: held[name][0] for name in parts[self.parts[-1]].outputs}
        masks = found["masks"].reshape(len(scores), *found["masks"].shape[-2:])
        kept = np.argsort(-scores, axis=None, kind="stable")[: len(scores)]
        query, kind = np.divmod(kept, scores.shape[1])
        certain = scores[query, kind] * surely(masks)[query]
        order = np.argsort(-certain, kind="stable")
        order = order[certain[order] > self.settings.score]
        edge = next(iter(sample.values())).shape[-1] / masks.shape[-1]
        rows = {name: filled(value[query[order]], len(scores)) for name, value in found.items()}
        return rows | {
            "masks": filled(masks[query[order]], len(scores)),
            "scores": filled(certain[order], len(scores)),
            "classes": filled(kind[order], len(scores)),
            "boxes": filled(around(masks[query[order]] > 0) * np.float32(edge), len(scores)),
        }


def surely(masks: Floats) -> Floats:
    """The mean probability of what is inside each of mask logits (n, H, W); 0 of empty ones."""
    inside = masks > 0
    with np.errstate(over="ignore"):
        likely = 1 / (1 + np.exp(-masks))
    return np.asarray((likely * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6), np.float32)


def around(masks: npt.NDArray[np.bool_]) -> Floats:
    """The box around each mask (n, H, W), corners in places; zeros of empty ones."""
    found = np.zeros((len(masks), 4), np.float32)
    for i, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            found[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found


def levels_of(maps: Sequence[Floats], anchors: int) -> npt.NDArray[np.intp]:
    """The level of each anchor (A,): as many at each place of all maps (C, H, W), the rest on one coarser level behind them.

    That is half as large (rounded up) as the last map.
    """
    places = [m.shape[1] * m.shape[2] for m in maps]
    places.append(-(-maps[-1].shape[1] // 2) * -(-maps[-1].shape[2] // 2))
    return np.repeat(np.arange(len(places)), np.array(places) * (anchors // sum(places)))


def with_area(boxes: Floats) -> npt.NDArray[np.bool_]:
    """Which of boxes (n, 4) have one."""
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))


def filled(rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Rows, and zeros behind them up to ``count``."""
    return np.concatenate((rows, np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)))
