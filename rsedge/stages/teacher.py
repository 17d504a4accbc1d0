"""The teacher: from its section to its outputs on views, its two baselines on OpenVINO, and its own metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rsedge.cache.stage import StageContext
from rsedge.compress.prune_plan import count_macs
from rsedge.compress.taps import TapRecorder
from rsedge.compress.teacher_outputs import TeacherFunction
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.onnx_graph import count_macs as onnx_macs
from rsedge.models.answers import check_candidates, check_logits
from rsedge.models.black_box import BlackBox
from rsedge.models.families import family
from rsedge.models.outside import load_outside, weight_count
from rsedge.models.probe import probed
from rsedge.models.teachers import Teacher, load_teacher
from rsedge.models.vlm_files import VlmFiles
from rsedge.models.zoo import teacher_row
from rsedge.recipe.schema import FitSection, TeacherSection
from rsedge.results.records import Judged
from rsedge.results.records import Teacher as TeacherValue
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.openvino_core import settings, shared_core
from rsedge.tasks.base import HeldOut

if TYPE_CHECKING:
    from rsedge.stages.train import Workshop

Images = npt.NDArray[np.float32]
DATA_PROBES = 4
"""Training views on which the teacher's outputs are looked at first."""


def recipe_teacher(section: TeacherSection) -> Teacher:
    """The recipe's teacher: a row of the zoo, or a network of another library under the recipe's band contract.

    What the data's labels are to fill (``fit``, ``probe``) is still empty.

    Raises:
        RequestError, MissingCapability: as :func:`rsedge.models.teachers.load_teacher` and
            :func:`rsedge.models.outside.load_outside`.
    """
    if section.probe is not None:
        bare = section.model_copy(update={"probe": None, "classes": ()})
        return probed(recipe_teacher(bare), section.classes, section.probe.task)
    if section.fit is not None:
        return untrained(section, section.fit)
    if not section.is_outside:
        row = teacher_row(section.name)
        if row.task == "captioning":
            return vlm_files(section).front(row)
        return _named(load_teacher(section.name, section.checkpoint), section)
    net, row = load_outside(section.name, section.contract, section.classes, section.checkpoint, section.task)
    return Teacher(net, row, {}).eval().requires_grad_(False)


def vlm_files(section: TeacherSection, expert: int | None = None) -> VlmFiles:
    """Where a captioning teacher lies; preflight has seen that its folder is given."""
    assert section.checkpoint is not None
    return VlmFiles(section.checkpoint, section.vision, section.adapter, expert)


def untrained(section: TeacherSection, fit: FitSection) -> Teacher:
    """A network of the zoo with random weights (those of a fixed seed), to be fitted on labels.

    Raises:
        RequestError: it does not take the arguments under ``fit.arch``.
    """
    row = teacher_row(section.name)
    tile = fit.tile or row.input_spec.tile
    arch = {**row.arch, "image": tile, **fit.arch, "classes": len(section.classes)}
    torch.manual_seed(0)
    try:
        net = family(row.family).build(**arch)
    except TypeError as error:
        raise RequestError(f"teacher.fit.arch: {error}") from error
    spec = row.input_spec.model_copy(update={"tile": tile})
    row = row.model_copy(update={"arch": arch, "input": spec, "classes": section.classes, "params": weight_count(net)})
    return Teacher(net, row, arch).eval().requires_grad_(False)


def _named(teacher: Teacher, section: TeacherSection) -> Teacher:
    """A detector with its classes named: its file only counts them.

    Raises:
        RequestError: another number of names.
    """
    if teacher.spec.task != "detection":
        return teacher
    count = int(teacher.arch["classes"])
    names = section.classes or tuple(f"class {i}" for i in range(count))
    if len(names) != count:
        raise RequestError(f"teacher.classes: {len(names)} names, '{section.name}' has {count} classes")
    return Teacher(teacher.net, teacher.spec.model_copy(update={"classes": names}), teacher.arch).eval()


def output_names(teacher: Teacher) -> tuple[str, ...]:
    """The teacher's classes; what has no classes gets a number per output."""
    if teacher.spec.classes:
        return teacher.spec.classes
    with torch.inference_mode():
        outputs = teacher(torch.zeros(1, *teacher.spec.input_spec.shape))
    return tuple(f"output {i}" for i in range(outputs.shape[1]))


def as_openvino(module: nn.Module, spec: InputSpec) -> Any:
    """A network (normalised float32 in, logits out, no pre-processing) as an ``ov.Model`` for one input."""
    import openvino as ov

    from rsedge.export.black_box import black_box_network

    if isinstance(module, Teacher) and isinstance(module.net, BlackBox):
        return black_box_network(module.net, spec)
    shape = [1, *spec.shape]
    model = ov.convert_model(module, example_input=torch.zeros(shape))
    model.reshape(shape)
    return model


def openvino_teacher(teacher: Teacher, spec: InputSpec, threads: int) -> TeacherFunction:
    """The teacher on OpenVINO in f32: about twice as fast as torch on a CPU."""
    compiled = shared_core().compile_model(as_openvino(teacher, spec), "CPU", settings("CPU", "f32", threads))

    def run(x: Images) -> dict[str, Images]:
        return {"logits": np.concatenate([compiled(one[None])[0] for one in x])}

    return run


def torch_teacher(teacher: Teacher, taps: Sequence[str], device: str) -> TeacherFunction:
    """The teacher in torch, with the outputs of the named submodules beside its logits."""
    module = teacher.to(device).eval()

    def run(x: Images) -> dict[str, Images]:
        with torch.inference_mode(), TapRecorder(module, taps) as recorder:
            logits = module(torch.from_numpy(x).to(device))
            outputs = {"logits": logits, **recorder.out}
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    return run


def teacher_stage(context: StageContext, shop: Workshop) -> TeacherValue:
    """Exports the teacher as it is and quantized by plain NNCF, and takes its metrics on its own executable.

    ``metrics`` and ``agreement`` are those on the test set, ``selection`` holds those that choices may look at; what is kept of
    the f32 outputs on each role is in ``<role>.npz``.

    Raises:
        RequestError: its outputs on training views are no logits, or no candidates.
        MissingCapability: a needed module or the disk's room is missing.
    """
    from rsedge.compress.quantize import plain_ptq
    from rsedge.export.openvino import save_openvino

    check_on_data(shop)
    model = _deployable(context, shop)
    f32 = save_openvino(model, context.folder / "teacher-f32.xml", shop.spec, shop.classes)
    sizes = {"f32": f32.size_bytes}
    if len(shop.calibration) and not shop.trial:
        quantized = plain_ptq(model, list(shop.calibration))
        int8 = save_openvino(quantized, context.folder / "teacher-int8.xml", shop.spec, shop.classes)
        sizes["int8"] = int8.size_bytes
    judged = _judged(context, shop, shop.test, tuple(sizes))
    return TeacherValue(
        sizes=sizes, metrics=judged.metrics, agreement=judged.agreement,
        selection=_judged(context, shop, shop.selection, tuple(sizes)),
        params=weight_count(shop.teacher.net), macs=_macs(shop.teacher, shop.spec),
    )  # fmt: skip


def check_on_data(shop: Workshop) -> None:
    """Looks at the teacher's outputs on a few training views, before anything learns from them.

    Raises:
        RequestError: they are not what they are taken for; says what, and what mends it.
    """
    if shop.task.kind not in ("classes", "labels", "boxes"):
        return
    views = np.stack([shop.views(i) for i in range(DATA_PROBES)])
    found = shop.teacher_function(shop.spec.normalise(views))["logits"]
    check = check_candidates if shop.task.kind == "boxes" else check_logits
    check(found, shop.recipe.teacher.name)


def _judged(context: StageContext, shop: Workshop, held_out: HeldOut, precisions: Sequence[str]) -> Judged:
    """Metrics of the teacher's files on one role, by precision; writes what is kept of the first one's outputs."""
    kept = {}
    for precision in precisions:
        path = context.folder / f"teacher-{precision}.xml"
        with contextlib.closing(open_session(path, "openvino", precision=precision, threads=shop.threads)) as session:
            kept[precision] = shop.task.run(session, held_out.inputs)
    first = kept[precisions[0]]
    np.savez_compressed(context.folder / f"{held_out.role}.npz", kept=first)
    return Judged(
        metrics={precision: held_out.metrics(found, first) for precision, found in kept.items()},
        agreement={precision: held_out.agreement(found, first) for precision, found in kept.items()},
    )


def _deployable(context: StageContext, shop: Workshop) -> Any:
    """The teacher's ``ov.Model`` from digital numbers to logits."""
    from rsedge.export.black_box import deployable_black_box
    from rsedge.export.graph import Deployable
    from rsedge.export.onnx import export_onnx
    from rsedge.export.openvino import read_openvino

    graph = Deployable(shop.teacher, shop.spec, shop.task.output)
    if isinstance(shop.teacher.net, BlackBox):
        return deployable_black_box(graph, shop.teacher.net)
    with TemporaryFolder(context.folder) as folder:
        made = export_onnx(graph, shop.spec, shop.classes, folder / "teacher.onnx")
        return read_openvino(made.path)


def _macs(teacher: Teacher, spec: InputSpec) -> int | None:
    """Multiply-accumulates of one input; None for a black box whose shapes cannot be told from its file."""
    if not isinstance(teacher.net, BlackBox):
        return count_macs(teacher, torch.zeros(1, *spec.shape))
    try:
        return onnx_macs(teacher.net.path, (1, *spec.shape))
    except RequestError:
        return None
