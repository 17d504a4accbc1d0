"""The export stage: the student as the files that targets take, each checked against torch."""

from __future__ import annotations

from rsedge.cache.stage import StageContext
from rsedge.data.errors import GateFailed
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.parity import parity
from rsedge.export.targets.openvino import export_openvino
from rsedge.results.records import Export, OwnFile
from rsedge.runtimes.file_checks import agree
from rsedge.runtimes.precision import precision
from rsedge.stages.context import RunContext
from rsedge.stages.makers.registry import by_maker
from rsedge.stages.outputs import STUDENT_IR, STUDENT_ONNX
from rsedge.stages.samples import sample_tiles


def export_stage(context: StageContext, ctx: RunContext) -> Export:
    """Writes ``student-f32.onnx`` and ``student-f32.xml``, which every run has, and what the makers of its float targets add.

    Raises:
        GateFailed: torch, ONNX Runtime and OpenVINO disagree at f32, or a target's file gives other numbers.
    """
    graph = Deployable(ctx.student(ctx.shipped), ctx.spec, ctx.task.output)
    onnx = export_onnx(graph, ctx.spec, ctx.classes, context.folder / STUDENT_ONNX.name)
    ir = export_openvino(onnx.path, context.folder / STUDENT_IR.name, ctx.spec, ctx.classes)
    found = parity(graph, onnx.path, ir.xml, sample_tiles(ctx), ctx.threads)
    if not agree(found):
        gaps = ", ".join(f"{runtime} {difference.max_abs:.2g}" for runtime, difference in found.items())
        raise GateFailed(f"export: runtimes disagree with torch at f32 (largest difference of logits: {gaps})")
    sizes = {"onnx": onnx.size_bytes, "openvino": ir.size_bytes}
    own: dict[str, OwnFile] = {}
    for maker, targets in by_maker(ctx.recipe.parsed_targets):
        floats = [t for t in targets if not precision(t.precision).quantized]
        made = maker.export(context.folder, ctx, graph, onnx.path, floats)
        sizes |= made.sizes
        found |= made.parity
        own |= made.own
    return Export(parity=found, sizes=sizes, own=own)


def check_for_targets(ctx: RunContext) -> None:
    """Holds the untrained student against what its targets can run, before any work.

    Raises:
        RequestError: a student that one of them cannot run; says what would be possible.
    """
    for maker, targets in by_maker(ctx.recipe.parsed_targets):
        maker.check(ctx, targets)
