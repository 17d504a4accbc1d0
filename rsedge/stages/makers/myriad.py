"""The Intel Myriad's files: the IR that OpenVINO 2022.3.2, a child process, makes of the student, for every target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsedge.data.errors import GateFailed, MissingCapability
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.profiles.profile import load_profile
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.myriad import MyriadArtefact, check_release, export_myriad
from rsedge.results.records import OwnFile
from rsedge.runtimes.bundle.manifest import Target
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Exported, Maker, made_for
from rsedge.stages.samples import sample_tiles


class MyriadMaker(Maker):
    """``<target>/model.xml`` with fp16 weights."""

    backend = "myriad"
    suffixes = (".xml", ".bin")
    own = True

    def export(
        self, folder: Path, ctx: RunContext, graph: Deployable, onnx: Path, targets: Sequence[Target]
    ) -> Exported:
        return Exported(own={target.name: _made(folder, ctx, graph, target) for target in targets})

    def build(self, ctx: RunContext, target: Target) -> MyriadArtefact:
        files = self.artefact(ctx, target)
        made = MyriadArtefact.model_validate(made_for(ctx, target).artefact)
        return made.model_copy(update=dict(zip(("xml", "bin"), files.files, strict=True)))


def _made(folder: Path, ctx: RunContext, graph: Deployable, target: Target) -> OwnFile:
    """The IR of the student, with its differences from f32."""
    software = load_profile(target.device).software_for("openvino")
    if software is None:
        raise MissingCapability(f"target '{target.name}': the profile of '{target.device}' names no OpenVINO release")
    check_release(target.name, software.runtime_version)
    with TemporaryFolder(folder) as inside:
        source = export_onnx(graph, ctx.spec, ctx.classes, inside / "f32.onnx", software.opset, "float32").path
        xml = folder / target.name / "model.xml"
        made = export_myriad(source, xml, ctx.spec, ctx.classes, sample_tiles(ctx), ctx.threads, ctx.task.output)
    if not made.passed:
        raise GateFailed(
            f"export: {target.name}: OpenVINO {software.runtime_version} is off by {made.weights_fp16.max_abs:.2g} in "
            "its logits, more than fp16 weights explain"
        )
    named = made.model_copy(update={"xml": Path(made.xml.name), "bin": Path(made.bin.name)})
    return OwnFile(artefact=named.model_dump(mode="json"), parity=made.parity)


MAKER = MyriadMaker()
