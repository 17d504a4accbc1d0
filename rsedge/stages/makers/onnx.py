"""ONNX files, for every backend that opens them as they are: ONNX Runtime, and those of other packages."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import onnx
from torch import nn

from rsedge.compress.quantize.ptq import PtqSettings, Tiles
from rsedge.compress.quantize.qat import Grid
from rsedge.compress.quantize.qdq import is_onnx_transformer, onnx_layers, quantize_onnx
from rsedge.compress.quantize.search import onnx_ladder
from rsedge.runtimes.bundle.manifest import Target
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Delivered, Maker, gap
from rsedge.stages.makers.int8 import FileInt8, searched


class FileMaker(Maker):
    """Targets of one precision share a file, which the INT8 search writes as it is to run."""

    @abstractmethod
    def int8(self, ctx: RunContext, targets: Sequence[Target], scratch: Path) -> FileInt8:
        """How a network becomes INT8."""

    def quantize(
        self, folder: Path, ctx: RunContext, net: nn.Module, targets: Sequence[Target], scratch: Path
    ) -> Delivered:
        runtime = self.int8(ctx, targets, scratch)
        made, model = searched(runtime, net, ctx)
        path = folder / f"student-int8{self.suffixes[0]}"
        shutil.copyfile(model.runs, path)
        found = gap(runtime.source(made.net), path, self.backend, ctx)
        names = tuple(t.name for t in targets)
        return Delivered(names, made.record, path.stat().st_size, dict.fromkeys(names, found))


class OnnxMaker(FileMaker):
    """``student-f32.onnx`` is there for every run; this adds INT8 between quantize/dequantize pairs."""

    def __init__(self, backend: str) -> None:
        self.backend = backend  # type: ignore[misc]

    def int8(self, ctx: RunContext, targets: Sequence[Target], scratch: Path) -> FileInt8:
        return OnnxInt8(self.backend, ctx, targets, scratch)


class QdqInt8(FileInt8):
    """Quantize/dequantize pairs in an ONNX file."""

    saturates = False

    def planned(self, net: nn.Module) -> list[PtqSettings]:
        return onnx_ladder(is_onnx_transformer(onnx.load(str(self.source(net)))), self.saturates)

    def grid(self, chosen: PtqSettings) -> Grid:
        return "signed"

    def round(self, source: Path, path: Path, tiles: Tiles, chosen: PtqSettings) -> None:
        quantize_onnx(source, path, tiles, chosen)

    def layers(self, path: Path) -> tuple[str, ...]:
        return onnx_layers(onnx.load(str(path)))


class OnnxInt8(QdqInt8):
    """Files of a backend that opens ONNX, on this CPU."""

    def __init__(self, backend: str, ctx: RunContext, targets: Sequence[Target], scratch: Path) -> None:
        super().__init__(ctx, targets, scratch)
        self.name = backend

    @property
    def saturates(self) -> bool:  # type: ignore[override]
        """Whether some host may add 8-bit products in 16 bits."""
        return self.section.hosts == "any"

    def source(self, net: nn.Module) -> Path:
        return self.exported(net, dtype="float32")
