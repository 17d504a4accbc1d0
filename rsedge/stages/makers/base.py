"""What a :class:`Maker` is: one backend's way from the student to the files of its targets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from rsedge.compress.quantize.int8 import QuantizeRecord
from rsedge.data.errors import RequestError
from rsedge.export.bundle import BuildFiles
from rsedge.export.onnx.graph import Deployable
from rsedge.export.parity import compare, run_session
from rsedge.recipe.schema import Recipe
from rsedge.results.records import Export, OwnFile, Quantize
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.file_checks import Difference
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.precision import precision
from rsedge.stages.context import RunContext
from rsedge.stages.makers.int8 import Int8Runtime
from rsedge.stages.samples import sample_tiles


@dataclass(frozen=True)
class Artefact:
    """Where a target's model lies; ``files``: all that belong to it, ``path`` the first."""

    target: Target
    path: Path
    files: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        return sum(f.stat().st_size for f in self.files)


@dataclass(frozen=True)
class Exported:
    """What a maker wrote in the export stage: sizes (bytes) by kind, differences from torch, and what is for one target alone."""

    sizes: dict[str, int] = field(default_factory=dict)
    parity: dict[str, Difference] = field(default_factory=dict)
    own: dict[str, OwnFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivered:
    """What INT8 targets got: the search's record, the size of the file (bytes), and how it differs from f32."""

    targets: tuple[str, ...]
    record: QuantizeRecord
    size_bytes: int
    parity: dict[str, Difference] = field(default_factory=dict)
    own: dict[str, OwnFile] = field(default_factory=dict)


class Maker:
    """One backend's model files.

    Attributes:
        backend: its name in :mod:`rsedge.runtimes.registry`.
        suffixes: of the files of one model; the runtime opens the first.
        own: every target has a file of its own, in a folder of its name; else targets of one precision share one.
        times_networks: whether networks that have no files yet can be timed (:meth:`runner`); else their latency is predicted.
    """

    backend: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    own: ClassVar[bool] = False
    times_networks: ClassVar[bool] = False

    def export(
        self, folder: Path, ctx: RunContext, graph: Deployable, onnx: Path, targets: Sequence[Target]
    ) -> Exported:
        """Writes what its float targets take into ``folder``, beside ``student-f32.onnx`` (``onnx``) and ``.xml``, which are there.

        Raises:
            GateFailed: a file that does not give the student's numbers. MissingCapability: what makes it is not here.
        """
        return Exported()

    def check(self, ctx: RunContext, targets: Sequence[Target]) -> None:
        """Holds the untrained student against its targets, before any work.

        Raises:
            RequestError: a student that they cannot run.
        """

    def alike(self, target: Target, recipe: Recipe) -> Hashable:
        """INT8 targets of which this is equal may share one file."""
        return ()

    def int8(self, ctx: RunContext, targets: Sequence[Target], scratch: Path) -> Int8Runtime[Any]:
        """How a network becomes INT8 for targets that are alike; ``scratch``: for what is tried on the way.

        Raises:
            RequestError: the backend has no INT8.
        """
        raise RequestError(f"{targets[0].name}: nothing here makes INT8 files for {self.backend}; take the target away")

    def quantize(
        self, folder: Path, ctx: RunContext, net: nn.Module, targets: Sequence[Target], scratch: Path
    ) -> Delivered:
        """Writes the INT8 files of targets that are alike into ``folder``; ``scratch`` as for :meth:`int8`.

        Raises:
            GateFailed: nothing could quantize the student at all. RequestError: as :meth:`int8`.
        """
        raise RequestError(f"{targets[0].name}: nothing here makes INT8 files for {self.backend}; take the target away")

    def artefact(self, ctx: RunContext, target: Target) -> Artefact:
        """The files of a target among the outputs of export and quantize."""
        made = precision(target.precision)
        folder = ctx.folders[made.made_by]
        stem = folder / target.name / "model" if self.own else folder / made.stem
        files = tuple(stem.with_name(stem.name + suffix) for suffix in self.suffixes)
        return Artefact(target, files[0], files)

    def runner(self, ctx: RunContext, net: nn.Module, target: Target) -> Callable[[], Any]:
        """What runs a network once as the target would, for timing candidates side by side; INT8 only roughly.

        Raises:
            RequestError: not where :attr:`times_networks` is false.
        """
        raise RequestError(f"{target.name}: networks are not timed on {self.backend} before they are exported")

    def build(self, ctx: RunContext, target: Target) -> BuildFiles | None:
        """What the bundle tells those who build on the device; None where nothing is built there."""
        return None


def made_for(ctx: RunContext, target: Target) -> OwnFile:
    """What export or quantize made for a target alone."""
    quantized = precision(target.precision).quantized
    own = ctx.results.of(Quantize).own if quantized else ctx.results.of(Export).own
    return own[target.name]


def gap(reference: Path, candidate: Path, runtime: str, ctx: RunContext) -> Difference:
    """How the INT8 executable's logits differ from the f32 one's on the same tiles."""
    samples = sample_tiles(ctx)
    outputs = []
    for path, made in ((reference, "f32"), (candidate, "int8")):
        with contextlib.closing(open_session(path, runtime, precision=made, threads=ctx.threads)) as session:
            outputs.append(run_session(session, samples))
    return compare(outputs[0], outputs[1], ctx.task.output)
