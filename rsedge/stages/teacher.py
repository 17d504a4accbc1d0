"""The teacher stage: the teacher's two baselines on OpenVINO (f32, plain INT8) and its own metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rsedge.cache.stage import StageContext
from rsedge.compress.prune.plan import count_macs
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.predict.onnx_graph import count_macs as onnx_macs
from rsedge.models.black_box import black_box_in
from rsedge.models.outside.loading import weight_count
from rsedge.models.teachers import Teacher
from rsedge.recipe.schema import PLAIN_INT8
from rsedge.results.records import Judged
from rsedge.results.records import Teacher as TeacherValue
from rsedge.runtimes.opening import open_session
from rsedge.stages.outputs import TEACHER_IR, predictions
from rsedge.stages.teacher_model import LARGE
from rsedge.tasks.base import HeldOut

if TYPE_CHECKING:
    from rsedge.stages.context import RunContext

DATA_PROBES = 4
"""Training views on which the teacher's outputs are looked at first."""


def teacher_stage(context: StageContext, ctx: RunContext) -> TeacherValue:
    """Exports the teacher as it is and quantized by plain NNCF, and takes its metrics on its own executable.

    ``metrics`` and ``agreement`` are those on the test set, ``selection`` holds those that choices may look at; what is kept of
    the f32 outputs on each role is in ``<role>.npz``.

    Raises:
        RequestError: its outputs on training views are no logits, or no candidates; or calibration tiles are unusable.
        MissingCapability: a needed module or the disk's room is missing.
    """
    from rsedge.compress.quantize.ptq import check_calibration, plain_ptq
    from rsedge.export.targets.openvino import save_openvino

    check_on_data(ctx)
    ctx.let_teacher_go()
    ctx = ctx.seen_as(ctx.teacher.spec.input_spec)
    if len(ctx.calibration):
        check_calibration(list(ctx.calibration))
    model = _deployable(context, ctx)
    f32 = save_openvino(model, context.folder / TEACHER_IR["f32"].name, ctx.spec, ctx.classes)
    sizes = {"f32": f32.size_bytes}
    if len(ctx.calibration) and not ctx.trial and _plain_int8(ctx):
        quantized = plain_ptq(model, list(ctx.calibration))
        int8 = save_openvino(quantized, context.folder / TEACHER_IR["int8"].name, ctx.spec, ctx.classes)
        sizes["int8"] = int8.size_bytes
    judged = _judged(context, ctx, ctx.test, tuple(sizes))
    return TeacherValue(
        sizes=sizes, metrics=judged.metrics, agreement=judged.agreement,
        selection=_judged(context, ctx, ctx.selection, tuple(sizes)),
        params=weight_count(ctx.teacher.net), macs=_macs(ctx.teacher, ctx.spec),
    )  # fmt: skip


def _plain_int8(ctx: RunContext) -> bool:
    """Whether the teacher is quantized as it is, for comparison: a large one only where a gate asks for it."""
    if ctx.teacher_is_large and not ctx.recipe.plain_int8_asked:
        ctx.reporter.note(
            f"  of the teacher no INT8 is made for comparison, it has {LARGE / 1e6:.0f} million parameters or more; a latency gate "
            f"with `over: {PLAIN_INT8}` asks for it"
        )
    return not ctx.teacher_is_large or ctx.recipe.plain_int8_asked


def check_on_data(ctx: RunContext) -> None:
    """Looks at the teacher's outputs on a few training views, before anything learns from them.

    Raises:
        RequestError: they are not what they are taken for; says what, and what mends it.
    """
    views = np.stack([ctx.views(i) for i in range(DATA_PROBES)])
    found = ctx.ask_teacher(views)["logits"]
    ctx.task.check_answers(found, ctx.recipe.teacher.name)


def _judged(context: StageContext, ctx: RunContext, held_out: HeldOut, precisions: Sequence[str]) -> Judged:
    """Metrics of the teacher's files on one role, by precision; writes what is kept of the first one's outputs."""
    kept = {}
    for precision in precisions:
        path = context.folder / f"teacher-{precision}.xml"
        with contextlib.closing(open_session(path, "openvino", precision=precision, threads=ctx.threads)) as session:
            kept[precision] = ctx.task.predict(session, held_out.inputs)
    first = kept[precisions[0]]
    np.savez_compressed(context.folder / predictions(context.name, held_out.role).name, kept=first)
    return Judged(
        metrics={precision: held_out.metrics(found, first) for precision, found in kept.items()},
        agreement={precision: held_out.agreement(found, first) for precision, found in kept.items()},
    )


def _deployable(context: StageContext, ctx: RunContext) -> Any:
    """The teacher's ``ov.Model`` from digital numbers to logits."""
    from rsedge.export.black_box import deployable_black_box
    from rsedge.export.onnx.external import export_whole
    from rsedge.export.onnx.graph import Deployable
    from rsedge.export.targets.openvino import read_openvino

    graph = Deployable(ctx.teacher, ctx.spec, ctx.task.output)
    if (file := black_box_in(ctx.teacher)) is not None:
        return deployable_black_box(graph, file)
    with TemporaryFolder(context.folder) as folder:
        made = export_whole(graph, ctx.spec, ctx.classes, folder / "teacher.onnx")
        return read_openvino(made.path)


def _macs(teacher: Teacher, spec: InputSpec) -> int | None:
    """Multiply-accumulates of one input; None for a black box whose shapes cannot be told from its file."""
    file = black_box_in(teacher)
    if file is None:
        return count_macs(teacher, torch.zeros(1, *spec.shape))
    try:
        return onnx_macs(file.path, (1, *spec.shape))
    except RequestError:
        return None
