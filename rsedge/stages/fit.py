"""The stage of ``teacher.fit``: a detector that comes without weights learns from labels, as a student from its teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rsedge.cache.stage import StageContext, StageResult
from rsedge.compress.distill.teacher_outputs import LabelledViews
from rsedge.compress.distill.training import DistillSettings, distill
from rsedge.data.files import atomic_path
from rsedge.results.records import Fit
from rsedge.stages.context import RunContext, logits_of, report_progress
from rsedge.stages.distill import finite
from rsedge.stages.teacher_model import teacher_key

WEIGHTS = "teacher.safetensors"


def fit_stage(context: StageContext, ctx: RunContext) -> Fit:
    """Writes :data:`WEIGHTS` and returns the record.

    Raises:
        RequestError: the data have no boxes, the network gives none of their kind, or the loss is not finite.
    """
    section = ctx.recipe.teacher.fit
    assert section is not None
    ctx = ctx.seen_as(ctx.teacher.spec.input_spec)
    selection = ctx.selection
    given = ctx.task.fit_samples(selection)
    net = ctx.teacher.net.requires_grad_(True)
    set_anchors: Callable[[Tensor], None] | None = getattr(net, "set_anchors", None)
    if set_anchors is not None:
        set_anchors(torch.from_numpy(given.sizes))
    source = LabelledViews(given.views, given.labels, ctx.read, section.views)
    settings = DistillSettings(
        **section.model_dump(exclude={"views", "tile", "arch"}),
        loss=ctx.task.kind,
        device=ctx.recipe.device,
        section="teacher.fit",
    )
    x = ctx.spec.normalise(selection.inputs)
    ctx.task.check_answers(logits_of(net, x[:1]), ctx.recipe.teacher.name)

    def validate(module: nn.Module) -> dict[str, float]:
        return {"score": given.score(ctx.task.keep_logits(logits_of(module, x)))}

    trained, record = distill(
        source, net, settings, context.resume, ctx.recipe.seed, validate, report_progress(ctx, "fit the teacher")
    )
    with atomic_path(context.folder / WEIGHTS) as path:
        save_file({n: t.contiguous() for n, t in trained.cpu().state_dict().items()}, path)
    return Fit(record=finite(record), objects=len(given.sizes), judged=given.judged)


def take_weights(ctx: RunContext, result: StageResult[Fit]) -> None:
    """Fills the teacher with what the stage left."""
    ctx.teacher.net.load_state_dict(load_file(result.path(WEIGHTS)))
    ctx.teacher.eval().requires_grad_(False)
    ctx.teacher_key = teacher_key(ctx.teacher)
