"""The pictures of a report: scenes and maps beside their labels, objects in outlines, captions under what they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import InputSpec
from rsedge.judging import NODATA_CLASS
from rsedge.reports.assets import BoxAsset, CaptionAsset, TileAsset
from rsedge.stage import StageResult
from rsedge.stages_train import Workshop
from rsedge.task_boxes import BoxTask
from rsedge.task_captions import CaptionTask
from rsedge.task_maps import MapTask
from rsedge.task_scenes import SceneTask

TILES_SHOWN = 4
CAPTIONS_SHOWN = 8


def pictures(shop: Workshop, results: Mapping[str, StageResult], target: str) -> dict[str, list[Any]]:
    """What the task has to show of ``target``: a part of :class:`rsedge.reports.assets.ReportAssets` by its name."""
    task = shop.task
    if isinstance(task, CaptionTask):
        return {"captions": _captions(task, shop, target, results)}
    if not isinstance(task, SceneTask | MapTask | BoxTask):
        return {}
    with np.load(results["verify"].path(f"{target}.npz"), allow_pickle=False) as z:
        student = z["kept"]
    if isinstance(task, BoxTask):
        return {"boxes": _boxes(task, shop, student)}
    return {"tiles": _scenes(task, shop, student) if isinstance(task, SceneTask) else _maps(task, shop, student)}


def _captions(task: CaptionTask, shop: Workshop, target: str, results: Mapping[str, StageResult]) -> list[CaptionAsset]:
    """The first judged pictures with the texts of teacher and target."""
    taught = results["language"].value["teacher"]["texts"]
    told = results["captions"].value["targets"][target]["texts"]
    references = task.references or [()] * len(told)
    return [
        CaptionAsset(f"picture {i + 1}", _rgb(shop.spec, shop.inputs[i]), taught[i], told[i], tuple(references[i]))
        for i in range(min(CAPTIONS_SHOWN, len(told)))
    ]


def _scenes(task: SceneTask, shop: Workshop, student: npt.NDArray[np.generic]) -> list[TileAsset]:
    """The tiles with the most counted pixels; what is no validation pixel is shown, but judged nowhere."""
    tiles = task.tiles
    order = np.argsort(-tiles.counted.sum((1, 2)), kind="stable")[:TILES_SHOWN]
    out = []
    for i in sorted(order.tolist()):
        label = np.where(tiles.counted[i], tiles.labels[i], NODATA_CLASS) if tiles.labelled else None
        share = tiles.counted[i].mean()
        out.append(
            TileAsset(
                name=f"validation tile {i + 1}",
                rgb=_rgb(shop.spec, tiles.dn[i]),
                teacher=shop.teacher_kept[i],
                student=student[i],
                label=label,
                caption=f"{share:.0%} of it lies in validation blocks",
            )
        )
    return out


def _maps(task: MapTask, shop: Workshop, student: npt.NDArray[np.generic]) -> list[TileAsset]:
    """The validation samples that are least of one class, by their labels or else by the teacher."""
    truth = None if task.truth is None else task.truth[task.roles["validation"]]
    judged = shop.teacher_kept if truth is None else truth
    counts = np.stack([(judged == k).sum((1, 2)) for k in range(len(task.classes))], 1)
    order = np.argsort(counts.max(1) - counts.sum(1), kind="stable")[:TILES_SHOWN]
    two = shop.spec.layout == "TCHW"
    return [
        TileAsset(
            name=f"validation sample {i + 1}",
            rgb=_rgb(shop.spec, shop.inputs[i][-1] if two else shop.inputs[i]),
            teacher=shop.teacher_kept[i],
            student=student[i],
            label=None if truth is None else truth[i],
            before=_rgb(shop.spec, shop.inputs[i][0]) if two else None,
        )
        for i in sorted(order.tolist())
    ]


def _boxes(task: BoxTask, shop: Workshop, student: npt.NDArray[np.generic]) -> list[BoxAsset]:
    """The validation samples with the most objects of the labels, or of the teacher."""
    found = {"teacher": task.reported(shop.teacher_kept), "student": task.reported(student)}
    index = task.roles["validation"]
    truth = {} if task.truth is None else {"labels": [task.truth[i] for i in index]}
    boxes = {**truth, **found}
    most = np.array([len(b) for b in next(iter(boxes.values()))])
    order = np.argsort(-most, kind="stable")[:TILES_SHOWN]
    return [
        BoxAsset(f"validation sample {i + 1}", _rgb(shop.spec, shop.inputs[i]), {n: b[i] for n, b in boxes.items()})
        for i in sorted(order.tolist())
    ]


def _rgb(spec: InputSpec, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """A natural-colour picture (H, W, 3) where the contract has red, green and blue, else its first bands."""
    names = spec.band_names
    picks = [names.index(b) for b in ("red", "green", "blue")] if {"red", "green", "blue"} <= set(names) else [0, 0, 0]
    image = spec.to_physical(dn)[picks]
    low, high = (float(np.quantile(image, q)) for q in (0.01, 0.98))
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1) ** 0.8
    return np.moveaxis((scaled * 255).astype(np.uint8), 0, -1)
