"""The stage ``export`` of several parts: every part as ONNX and OpenVINO IR, held against torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsedge.cache.stage import StageContext
from rsedge.data.errors import GateFailed
from rsedge.export.parts import export_part, part_parity, part_to_openvino
from rsedge.models.parts import Arrays, Part
from rsedge.results.parts import PartFiles, PartsExport
from rsedge.runtimes.file_checks import F32_TOLERANCE
from rsedge.stages.outputs import ir_bytes
from rsedge.stages.parts.context import PartsContext, float_file

HELD = 2
"""Samples on which files are held against torch."""


def export_stage(context: StageContext, ctx: PartsContext) -> PartsExport:
    """Writes the float files of every part, and of the teacher's where a smaller one takes its place.

    Raises:
        RequestError: a part cannot be exported. GateFailed: a file gives other numbers than torch.
    """
    found, teacher = {}, {}
    for number, name in enumerate(ctx.teachers):
        ctx.reporter.step("export", number, len(ctx.teachers), name)
        samples = ctx.recorded(name, "selection")[0][:HELD]
        part = ctx.part(name)
        found[name] = _written(part, context.folder, name, samples, teacher=False)
        if part is not ctx.teachers[name].deployed:
            teacher[name] = _written(ctx.teachers[name].deployed, context.folder, name, samples, teacher=True)
    ctx.reporter.clear()
    return PartsExport(parts=found, teacher=teacher)


def _written(part: Part, folder: Path, name: str, samples: Sequence[Arrays], teacher: bool) -> PartFiles:
    onnx, xml = (folder / float_file(name, suffix, teacher).name for suffix in (".onnx", ".xml"))
    export_part(part, onnx)
    part_to_openvino(onnx, xml)
    parity = part_parity(part, onnx, xml, samples)
    if (worst := max(parity.values())) > F32_TOLERANCE:
        raise GateFailed(
            f"export: part '{name}' differs from torch by {worst:.2g} of its largest value (limit {F32_TOLERANCE:g})"
        )
    return PartFiles(sizes={"onnx": onnx.stat().st_size, "openvino": ir_bytes(xml)}, parity=parity)
