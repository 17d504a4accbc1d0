"""The stage ``data``: every role cut and written, by the task."""

from __future__ import annotations

from rsedge.cache.stage import StageContext, StageResult
from rsedge.results.data import Data
from rsedge.stages.context import RunContext


def data_stage(context: StageContext, ctx: RunContext) -> Data:
    """Writes ``calibration.npz`` and what is held out; see the task's own ``data_stage``."""
    return ctx.task.data_stage(context)


def take_data(ctx: RunContext, result: StageResult[Data]) -> None:
    """The task reads its roles from there."""
    ctx.task.load(result.folder)
