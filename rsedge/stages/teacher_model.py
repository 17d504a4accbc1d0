"""The recipe's teacher: from its section to a module, and its outputs in torch and on OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rsedge.compress.distill.taps import TapRecorder
from rsedge.compress.distill.teacher_outputs import TeacherFunction
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.models.black_box import black_box_in
from rsedge.models.families import family, registered_code
from rsedge.models.features import chosen
from rsedge.models.outside.loading import in_memory, load_outside, weight_count
from rsedge.models.outside.transformers import CONFIG
from rsedge.models.parts import one_graph
from rsedge.models.probe import probed
from rsedge.models.structure import STRUCTURE_FILE, load_model, read_structure, tensors_digest
from rsedge.models.students import build_student, contract_arguments, student_entry
from rsedge.models.tapped import tapped
from rsedge.models.teachers import Teacher, load_teacher
from rsedge.models.vlm.files import VlmFiles
from rsedge.models.zoo import OUTPUT_MARK, teacher_row
from rsedge.recipe.places import placeless_name
from rsedge.recipe.schema import FitSection, TeacherSection
from rsedge.runtimes.onnx_trial import try_first
from rsedge.runtimes.openvino.core import settings, shared_core

Images = npt.NDArray[np.float32]
LARGE = 500_000_000
"""Parameters from which on a teacher's executable is not kept, nor made for comparison alone: each holds its weights twice."""


def recipe_teacher(section: TeacherSection, module: nn.Module | None = None) -> Teacher:
    """The recipe's teacher: a row of the zoo, or a network of another library under the recipe's band contract.

    What the data's labels are to fill (``fit``, ``probe``) is still empty.

    Args:
        module: the network itself, where the section names one in memory.

    Raises:
        RequestError, MissingCapability: as :func:`rsedge.models.teachers.load_teacher` and
            :func:`rsedge.models.outside.loading.load_outside`.
    """
    if section.feature is not None:
        return tapped(recipe_teacher(section.model_copy(update={"name": section.network}), module), section.feature)
    if section.probe is not None:
        bare = section.model_copy(update={"probe": None, "classes": ()})
        return probed(recipe_teacher(bare, module), section.classes, section.probe.task)
    if section.fit is not None and not section.is_student:
        return untrained(section, section.fit)
    if section.is_student:
        return own_network(section)
    if not section.is_outside:
        row = teacher_row(section.name)
        if row.task == "captioning":
            return vlm_files(section).front(row)
        return _named(load_teacher(section.name, section.checkpoint), section)
    loader, _, place = section.name.partition(":")
    if loader == "onnx":
        try_first(Path(place.partition(OUTPUT_MARK)[0]), (1, *section.contract.shape))
    if module is not None:
        net, row = in_memory(module, section.contract, section.classes, section.task, section.name.partition(":")[2])
    else:
        net, row = load_outside(
            section.name,
            section.contract,
            section.classes,
            section.checkpoint,
            section.task,
            section.arch,
            section.entry,
        )
    return Teacher(net, row, row.arch).eval().requires_grad_(False)


def teacher_key(teacher: Teacher) -> str:
    """Hash of a teacher's weights and of what it was built with: the same weights may stand in another network. Where its file
    lies is no part of it."""
    arch = dict(teacher.arch)
    if "name" in arch:
        arch |= {"name": placeless_name(arch["name"]), "config": _config(arch["name"])}
    return sha256_of([tensors_digest(teacher), arch, family_code(teacher)])


def _config(name: str) -> str | None:
    """Hash of what a folder says of its network beside the weights; None of what is no folder of transformers."""
    loader, _, place = name.partition(":")
    return sha256_file(Path(place) / CONFIG) if loader == "transformers" else None


def family_code(teacher: Teacher) -> list[str]:
    """Hashes of the code that the program itself brought for a teacher; a probe stands on another family's encoder."""
    families = (teacher.spec.family, str(teacher.arch.get("probed")), str(teacher.arch.get("tapped")))
    return [code for name in families if (code := registered_code(name)) is not None]


def vlm_files(section: TeacherSection, expert: int | None = None) -> VlmFiles:
    """Where a captioning teacher lies; preflight has seen that its folder is given."""
    assert section.checkpoint is not None
    return VlmFiles(section.checkpoint, section.vision, section.adapter, expert)


def untrained(section: TeacherSection, fit: FitSection) -> Teacher:
    """A network of the zoo with random weights (those of a fixed seed), to be fitted on labels.

    Raises:
        RequestError: it does not take the arguments under ``fit.arch``, or cannot be fitted.
    """
    row = teacher_row(section.name)
    tile = fit.tile or row.input_spec.tile
    arch = {**row.arch, "image": tile, **fit.arch, "classes": len(section.classes)}
    torch.manual_seed(0)
    try:
        net = family(row.family).build(**arch)
    except TypeError as error:
        raise RequestError(f"teacher.fit.arch: {error}") from error
    if not one_graph(net):
        raise RequestError(f"teacher.fit: '{row.name}' has steps between its parts that nothing is learned through")
    spec = row.input_spec.model_copy(update={"tile": tile})
    row = row.model_copy(update={"arch": arch, "input": spec, "classes": section.classes, "params": weight_count(net)})
    return Teacher(net, row, arch).eval().requires_grad_(False)


def own_network(section: TeacherSection) -> Teacher:
    """A student of the catalogue as a teacher: with random weights (those of a fixed seed) to be fitted, or as a run left it.

    Raises:
        RequestError: unknown, it does not take its arguments, or the file is no structure of it.
    """
    name, spec = section.name.partition(":")[2], section.contract
    if section.checkpoint is None:
        entry = student_entry(name)
        if section.fit is None or entry.copies:
            why = "is made from a teacher" if entry.copies else "needs weights"
            raise RequestError(
                f"teacher.name: '{section.name}' {why}: name a network of its own (`rsedge students`) and give fit, or as "
                "checkpoint the structure.json that a run's distill or prune stage left in its folder model"
            )
        torch.manual_seed(0)
        asked = contract_arguments(name, spec, len(section.classes))
        net = build_student(name, {**asked, **section.arch, **section.fit.arch})
    else:
        if section.checkpoint.name != STRUCTURE_FILE:
            raise RequestError(
                f"{section.checkpoint}: of '{section.name}' the {STRUCTURE_FILE} is taken that a run left in its folder model"
            )
        folder = section.checkpoint.parent
        if (found := read_structure(folder)["factory"]) != name:
            raise RequestError(f"{section.checkpoint}: it is a {found}, not a {name}; write `student:{found}`")
        net = load_model(folder, build_student)
    net, row = in_memory(net, spec, section.classes, section.task, name)
    row = row.model_copy(update={"title": section.name, "source": section.name})
    return Teacher(net, row, row.arch).eval().requires_grad_(False)


def _named(teacher: Teacher, section: TeacherSection) -> Teacher:
    """A detector with its classes named: its file only counts them, its row may name them.

    Raises:
        RequestError: another number of names.
    """
    if teacher.spec.task != "detection":
        return teacher
    count = int(teacher.arch["classes"])
    known = teacher.spec.classes if len(teacher.spec.classes) == count else tuple(f"class {i}" for i in range(count))
    names = section.classes or known
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
    """A network (normalised float32 in, logits out, no pre-processing) as an ``ov.Model`` for one input.

    Raises:
        RequestError: it has steps of the host between its parts.
    """
    import openvino as ov

    from rsedge.export.black_box import black_box_network

    if not one_graph(module):  # tracing would write what the host does inside as constants
        raise RequestError("the network has steps of the host between its parts; export these (docs/parts.md)")
    if (file := black_box_in(module)) is not None:
        return black_box_network(file, spec)
    shape = [1, *spec.shape]
    model = ov.convert_model(module, example_input=torch.zeros(shape))
    model.reshape(shape)
    return model


def openvino_teacher(teacher: Teacher, spec: InputSpec, threads: int, bf16: bool = False) -> TeacherFunction:
    """The teacher on OpenVINO, about twice as fast as torch on a CPU; in torch where it is no single graph.

    Raises:
        MissingCapability: this processor does not compute in bf16.
    """
    if not one_graph(teacher):
        return torch_teacher(teacher, (), "cpu", bf16)
    precision = "bf16" if bf16 else "f32"
    compiled = shared_core().compile_model(as_openvino(teacher, spec), "CPU", settings("CPU", precision, threads))

    def run(x: Images) -> dict[str, Images]:
        return {"logits": np.concatenate([compiled(one[None])[0] for one in x])}

    return run


def torch_teacher(teacher: Teacher, taps: Sequence[str], device: str, bf16: bool = False) -> TeacherFunction:
    """The teacher in torch, with its features of these names, channels first, beside its logits; with bf16 under autocast.

    Raises:
        RequestError: a name is no published feature, or bf16 is asked for of a teacher with steps of the host, which has none.
    """
    if bf16 and not one_graph(teacher):
        raise RequestError(
            f"steps.distill.teacher_autocast: '{teacher.spec.name}' has steps of the host between its parts, which know no bf16; "
            "leave it out"
        )
    module = teacher.to(device).eval()
    tapped = chosen(teacher.features, taps, "steps.distill.taps.teacher", "the teacher") if taps else ()

    def run(x: Images) -> dict[str, Images]:
        passes = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16)
        with torch.inference_mode(), passes, TapRecorder(module, tapped) as recorder:
            logits = module(torch.from_numpy(x).to(device))
            outputs = {"logits": logits, **recorder.out}
        return {name: value.float().cpu().numpy() for name, value in outputs.items()}

    return run
