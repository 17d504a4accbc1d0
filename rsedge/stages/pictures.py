"""The pictures of a report: scenes and maps beside their labels, objects in outlines, captions under what they speak of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.cache.stage import Results, StageResult
from rsedge.data.bands import InputSpec
from rsedge.reports.assets import BoxAsset, CaptionAsset, TileAsset
from rsedge.results.records import Captions
from rsedge.stages.context import RunContext
from rsedge.stages.shown import LABEL, SHOWN
from rsedge.tasks.base import Arrays, Prediction
from rsedge.tasks.boxes import BoxTask
from rsedge.tasks.captions import CaptionTask


def pictures(ctx: RunContext, results: Results, target: str) -> dict[str, list[Any]]:
    """What the judging stages kept to be shown of ``target``: a part of :class:`rsedge.reports.assets.ReportAssets` by its name."""
    if isinstance(ctx.task, CaptionTask):
        return {"captions": _captions(ctx, target, results)}
    kept = _read(results["verify"], SHOWN)
    if not kept:
        return {}
    student = _read(results["verify"], f"{target}.npz")["kept"][kept["index"]]
    if isinstance(ctx.task, BoxTask):
        return {"boxes": _boxes(ctx.task, kept, student)}
    return {"tiles": _maps(ctx.spec, kept, student)}


def _read(result: StageResult[Any], name: str) -> Arrays:
    with np.load(result.path(name), allow_pickle=False) as z:
        return {key: z[key] for key in z.files}


def _captions(ctx: RunContext, target: str, results: Results) -> list[CaptionAsset]:
    """The first judged pictures with the texts of teacher and target."""
    found = results.of(Captions)
    teacher_answers, told = found.teacher.texts, found.targets[target].texts
    references = found.references or [()] * len(told)
    return [
        CaptionAsset(f"picture {i + 1}", _rgb(ctx.spec, dn), teacher_answers[i], told[i], tuple(references[i]))
        for i, dn in enumerate(_read(results[Captions.stage], SHOWN)["dn"])
    ]


def _maps(spec: InputSpec, kept: Arrays, student: Prediction) -> list[TileAsset]:
    """Class maps beside their labels; of a tile, pixels of other roles are shown, but judged nowhere."""
    share, two = kept.get("share"), spec.layout == "TCHW"
    return [
        TileAsset(
            name=f"test {'sample' if share is None else 'tile'} {number + 1}",
            rgb=_rgb(spec, dn[-1] if two else dn),
            teacher=kept["teacher"][i],
            student=student[i],
            label=kept.get(f"{LABEL}{i}"),
            caption="" if share is None else f"{share[i]:.0%} of it lies in test blocks",
            before=_rgb(spec, dn[0]) if two else None,
        )
        for i, (number, dn) in enumerate(zip(kept["index"], kept["dn"], strict=True))
    ]


def _boxes(task: BoxTask, kept: Arrays, student: Prediction) -> list[BoxAsset]:
    """Objects of labels, teacher and student."""
    teacher, found = task.reported(kept["teacher"]), task.reported(student)
    assets = []
    for i, (number, dn) in enumerate(zip(kept["index"], kept["dn"], strict=True)):
        labels = {"labels": kept[f"{LABEL}{i}"]} if f"{LABEL}{i}" in kept else {}
        boxes = {**labels, "teacher": teacher[i], "student": found[i]}
        assets.append(BoxAsset(f"test sample {number + 1}", _rgb(task.spec, dn), boxes))
    return assets


def _rgb(spec: InputSpec, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """A natural-colour picture (H, W, 3) where the contract has red, green and blue, else its first bands."""
    names = spec.band_names
    picks = [names.index(b) for b in ("red", "green", "blue")] if {"red", "green", "blue"} <= set(names) else [0, 0, 0]
    image = spec.to_physical(dn)[picks]
    low, high = (float(np.quantile(image, q)) for q in (0.01, 0.98))
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1) ** 0.8
    return np.moveaxis((scaled * 255).astype(np.uint8), 0, -1)
