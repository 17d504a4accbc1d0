"""LiteRT's files: ``.tflite`` by litert-torch, INT8 by its quantizer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from rsedge.compress.quantize.litert import is_litert_transformer, litert_ladder, litert_layers, quantize_litert
from rsedge.compress.quantize.ptq import PtqSettings, Tiles
from rsedge.compress.quantize.qat import Grid
from rsedge.data.errors import GateFailed
from rsedge.export.onnx.graph import Deployable
from rsedge.export.parity import compare, run_session, run_torch
from rsedge.export.targets.litert import export_litert
from rsedge.models.structure import tensors_digest
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.opening import open_session
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Exported
from rsedge.stages.makers.int8 import FileInt8
from rsedge.stages.makers.onnx import FileMaker
from rsedge.stages.samples import sample_tiles


class LiteRtMaker(FileMaker):
    """``student-f32.tflite``, held against torch, and its INT8."""

    backend = "litert"
    suffixes = (".tflite",)

    def export(
        self, folder: Path, ctx: RunContext, graph: Deployable, onnx: Path, targets: Sequence[Target]
    ) -> Exported:
        made = export_litert(graph, folder / "student-f32.tflite", ctx.spec, ctx.classes)
        samples = sample_tiles(ctx)
        with contextlib.closing(open_session(made.path, self.backend, threads=ctx.threads)) as session:
            found = compare(run_torch(graph, samples), run_session(session, samples), ctx.task.output)
        if not found.within():
            raise GateFailed(
                f"export: LiteRT disagrees with torch at f32 (largest difference of logits: {found.max_abs:.2g})"
            )
        return Exported({"litert": made.size_bytes}, {"litert": found})

    def int8(self, ctx: RunContext, targets: Sequence[Target], scratch: Path) -> FileInt8:
        return LiteRtInt8(ctx, targets, scratch)


class LiteRtInt8(FileInt8):
    """Signed activations with a zero-point, sums 32 bits wide on every host."""

    name = "litert"

    def planned(self, net: nn.Module) -> list[PtqSettings]:
        return litert_ladder(is_litert_transformer(self.source(net)))

    def grid(self, chosen: PtqSettings) -> Grid:
        return "mixed"

    def source(self, net: nn.Module) -> Path:
        key = (tensors_digest(net), None, self.name)
        if key not in self._files:
            graph = Deployable(net, self.ctx.spec, self.ctx.task.output)
            self._files[key] = export_litert(graph, self.fresh("f32.tflite"), self.ctx.spec, self.ctx.classes).path
        return self._files[key]

    def round(self, source: Path, path: Path, tiles: Tiles, chosen: PtqSettings) -> None:
        quantize_litert(source, path, tiles, chosen)

    def layers(self, path: Path) -> tuple[str, ...]:
        return litert_layers(path)


MAKER = LiteRtMaker()
