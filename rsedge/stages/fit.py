"""The stage of ``teacher.fit``: a detector that comes without weights learns from labels, as a student from its teacher."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rsedge.cache.stage import StageContext, StageResult
from rsedge.compress.distill.teacher_outputs import LabelledViews
from rsedge.compress.distill.training import DistillSettings, distill
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path
from rsedge.results.records import Fit
from rsedge.stages.context import RunContext, logits_of, report_progress
from rsedge.stages.distill import finite
from rsedge.stages.teacher_model import teacher_key
from rsedge.tasks.boxes import BoxTask
from rsedge.tasks.samples import SampleHeldOut

WEIGHTS = "teacher.safetensors"


def fit_stage(context: StageContext, ctx: RunContext) -> Fit:
    """Writes :data:`WEIGHTS` and returns the record.

    Raises:
        RequestError: the data have no boxes, or the loss is not finite.
    """
    section, task = ctx.recipe.teacher.fit, ctx.task
    assert section is not None
    if not isinstance(task, BoxTask) or task.truth is None:
        raise RequestError("teacher.fit: data.samples has no boxes to learn from")
    net = ctx.teacher.net.requires_grad_(True)
    selection = ctx.selection
    assert isinstance(selection, SampleHeldOut)
    train, judged = task.roles["train"], selection.index
    sizes = np.concatenate([b[:, 2:4] - b[:, :2] for b in (task.truth[i] for i in train)])
    if not len(sizes):
        raise RequestError("teacher.fit: the training samples hold no box; give more images or another seed")
    if not any(len(task.truth[i]) for i in judged):
        raise RequestError(
            "teacher.fit: the selection samples hold no box to choose the best step by; give more images, a larger "
            "data.selection.fraction or another seed"
        )
    set_anchors: Callable[[Tensor], None] | None = getattr(net, "set_anchors", None)
    if set_anchors is not None:
        set_anchors(torch.from_numpy(sizes))
    views = task.views_of(train, ctx.recipe.seed)
    source = LabelledViews(views, task.tables_of(views), ctx.spec, section.views)
    settings = DistillSettings(
        **section.model_dump(exclude={"views", "tile", "arch"}),
        loss="boxes",
        device=ctx.recipe.device,
        section="teacher.fit",
    )
    x = ctx.spec.normalise(selection.inputs)

    def validate(module: nn.Module) -> dict[str, float]:
        kept = task.keep_logits(logits_of(module, x))
        return {"score": task.metrics_of(judged, kept, kept)["ap50"]}

    trained, record = distill(
        source, net, settings, context.resume, ctx.recipe.seed, validate, report_progress(ctx, "fit the teacher")
    )
    with atomic_path(context.folder / WEIGHTS) as path:
        save_file({n: t.contiguous() for n, t in trained.cpu().state_dict().items()}, path)
    return Fit(record=finite(record), objects=len(sizes), judged=len(judged))


def take_weights(ctx: RunContext, result: StageResult[Fit]) -> None:
    """Fills the teacher with what the stage left."""
    ctx.teacher.net.load_state_dict(load_file(result.path(WEIGHTS)))
    ctx.teacher.eval().requires_grad_(False)
    ctx.teacher_key = teacher_key(ctx.teacher)
