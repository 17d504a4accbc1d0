"""The pictures of a report: what was kept to be shown, as the task pictures it; captions under what they speak of."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsedge.cache.stage import Results, StageResult
from rsedge.reports.assets import CaptionAsset
from rsedge.results.records import Captions
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import predictions
from rsedge.tasks.base import Arrays

SHOWN = "shown.npz"
"""The file of what is shown, in the folder of the stage that judges."""


def pictures(ctx: RunContext, results: Results, target: str) -> dict[str, list[Any]]:
    """What the judging stages kept to be shown of ``target``: a part of :class:`rsedge.reports.assets.ReportAssets` by its name."""
    if Captions.stage in results:
        return {"captions": _captions(ctx, target, results)}
    kept = _read(results["verify"], SHOWN)
    if not kept:
        return {}
    return ctx.task.pictures(kept, _read(results["verify"], predictions("verify", target).name)["kept"][kept["index"]])


def _read(result: StageResult[Any], name: str) -> Arrays:
    with np.load(result.path(name), allow_pickle=False) as z:
        return {key: z[key] for key in z.files}


def _captions(ctx: RunContext, target: str, results: Results) -> list[CaptionAsset]:
    """The first judged pictures with the texts of teacher and target."""
    found = results.of(Captions)
    teacher_answers, student_texts = found.teacher.texts, found.targets[target].texts
    references = found.references or [()] * len(student_texts)
    return [
        CaptionAsset(
            f"picture {i + 1}", ctx.task.picture(dn), teacher_answers[i], student_texts[i], tuple(references[i])
        )
        for i, dn in enumerate(_read(results[Captions.stage], SHOWN)["dn"])
    ]
