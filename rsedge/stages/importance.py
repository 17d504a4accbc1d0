"""The importance stage: which bands matter to the student, judged as the teacher's are (:mod:`.bands`)."""

from __future__ import annotations

from rsedge.cache.stage import StageContext
from rsedge.results.importance import BandsOfStudent
from rsedge.stages.bands import Watched, section_of
from rsedge.stages.context import RunContext, logits_of


def importance_stage(context: StageContext, ctx: RunContext) -> BandsOfStudent:
    """What the student, as it is shipped in f32, loses without each of its bands."""
    del context
    section, net = section_of(ctx), ctx.student(ctx.shipped)
    watched = Watched(ctx, section.inputs, lambda x: logits_of(net, x))
    return BandsOfStudent(
        metric=watched.metric, inputs=len(watched.held_out.inputs), bands=watched.costs(section.orders)
    )
