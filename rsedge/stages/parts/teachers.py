"""Parts of teachers as they are deployed: with the band contract inside, and named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_of
from rsedge.export.onnx.graph import Deployable, Output
from rsedge.models.families import family
from rsedge.models.parts import Part
from rsedge.models.structure import load_model, save_model, tensors_digest
from rsedge.models.students.narrow import start_from
from rsedge.models.teachers import Teacher, load_row
from rsedge.models.zoo import teacher_row
from rsedge.recipe.parts import PartsRecipe, PartTeacherSection
from rsedge.runtimes.session import INPUT

WHOLE_NET, VECTOR = "", "vector"
_FORMS: Mapping[str, Output] = {"CHW": "image", "C": "vector", "TC": "tokens", "TCHW": "tokens"}


@dataclass(frozen=True)
class TeacherPart:
    """A part with what it came from.

    Attributes:
        name: among those that the family gives; empty where the whole network is the part.
        spec: the band contract of its digital numbers; None where it takes none.
        deployed: with the contract's pre-processing inside.
    """

    teacher: Teacher
    name: str
    part: Part
    spec: InputSpec | None
    deployed: Part

    @property
    def key(self) -> str:
        """Hash of weights, sizes and name."""
        return sha256_of([tensors_digest(self.teacher), dict(self.teacher.arch), self.name])


class FromNumbers(nn.Module):
    """A part whose input at ``place`` arrives as digital numbers."""

    def __init__(self, net: nn.Module, spec: InputSpec, place: int) -> None:
        super().__init__()
        self.front = Deployable(nn.Identity(), spec, _FORMS[spec.layout])
        self.net, self.place = net, place

    def forward(self, *inputs: Tensor) -> Any:
        given = list(inputs)
        given[self.place], _ = self.front.prepare(given[self.place])
        return self.net(*given)


def teacher_parts(recipe: PartsRecipe) -> dict[str, TeacherPart]:
    """Every part of a recipe; a teacher that several come from is loaded once.

    Raises:
        RequestError: unknown teacher, a file that does not fit, or no such part.
    """
    loaded: dict[str, Teacher] = {}
    found = {}
    for name in recipe.parts:
        section = recipe.teacher_of(name)
        key = section.model_dump_json()
        if key not in loaded:
            loaded[key] = _loaded(section, name)
        found[name] = _part(loaded[key], name, recipe.parts[name].part)
    return found


def _loaded(section: PartTeacherSection, part: str) -> Teacher:
    row = teacher_row(section.name)
    row = row.model_copy(update={"arch": row.arch | section.arch})
    try:
        return load_row(row, section.checkpoint)
    except TypeError as error:
        raise RequestError(f"parts.{part}: teacher.arch: {error}") from error


def _part(teacher: Teacher, name: str, asked: str | None) -> TeacherPart:
    try:
        given = parts_of(teacher.spec.family, teacher.net, teacher.spec.input)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"parts.{name}: teacher.arch: '{teacher.spec.name}' gives no parts so: {error}") from error
    wanted = name if asked is None else asked
    if wanted not in given and asked is None and len(given) == 1:
        (wanted,) = given
    if wanted not in given:
        raise RequestError(
            f"parts.{name}: '{teacher.spec.name}' gives {', '.join(n or 'its whole network' for n in given)}; say which with part:"
        )
    part = given[wanted]
    spec = contract_of(part, teacher.spec.input)
    return TeacherPart(teacher, wanted, part, spec, deployed(part, spec))


def parts_of(family_name: str, net: nn.Module, spec: InputSpec | None) -> dict[str, Part]:
    """The parts that a network gives; one that gives none is a part itself, under an empty name.

    Raises:
        RequestError: it gives none and has no band contract, so that its tensors are not known.
    """
    makes = family(family_name).parts
    if makes is not None:
        return makes(net)
    if spec is None:
        raise RequestError(f"family '{family_name}' gives no parts and has no band contract")
    return {WHOLE_NET: Part(net, {"values": torch.zeros(1, *spec.shape)}, (VECTOR,))}


def contract_of(part: Part, spec: InputSpec | None) -> InputSpec | None:
    """The row's contract, where the part has one input that it is of."""
    if spec is None:
        return None
    return spec if sum(tuple(t.shape) == (1, *spec.shape) for t in part.inputs.values()) == 1 else None


def deployed(part: Part, spec: InputSpec | None) -> Part:
    """A part that takes digital numbers, :data:`rsedge.runtimes.session.INPUT`, where it took normalised ones."""
    if spec is None:
        return part
    names = list(part.inputs)
    place = next(i for i, t in enumerate(part.inputs.values()) if tuple(t.shape) == (1, *spec.shape))
    numbers = torch.from_numpy(spec.to_dn(spec.neutral().reshape([-1 if a == "C" else 1 for a in spec.layout])))
    example = numbers.expand(spec.shape).clone()[None]
    inputs = {INPUT if i == place else n: example if i == place else part.inputs[n] for i, n in enumerate(names)}
    return Part(FromNumbers(part.net, spec, place).eval(), inputs, part.outputs)


def student_part(own: TeacherPart, smaller: Mapping[str, Any], seed: int, where: str) -> tuple[Part, dict[str, Any]]:
    """A fresh, smaller part of the same family, started from the teacher's weights, and the arguments of its network.

    Raises:
        RequestError: the family does not take them, or the part has other tensors then.
    """
    row = own.teacher.spec
    arch = {**own.teacher.arch, **smaller}
    torch.manual_seed(seed)
    try:
        net = family(row.family).build(**arch)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise RequestError(f"{where}: {row.family} cannot be built with {dict(smaller)}: {error}") from error
    start_from(net, own.teacher.net)
    part = parts_of(row.family, net, row.input)[own.name]
    if part.signature != own.part.signature or part.outputs != own.part.outputs:
        raise RequestError(
            f"{where}: with {dict(smaller)} the part takes {_shapes(part)}, the teacher's {_shapes(own.part)}; make smaller only "
            "what lies inside"
        )
    _check_outputs(part, own, where)
    return part, arch


def _check_outputs(part: Part, own: TeacherPart, where: str) -> None:
    """Runs both once.

    Raises:
        RequestError: the smaller part does not run, or gives tensors of other shapes.
    """
    example = {name: value.numpy(force=True) for name, value in own.part.inputs.items()}
    try:
        found = Part(part.net.eval(), part.inputs, part.outputs).run(example)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise RequestError(f"{where}: the part does not run so: {error}") from error
    for name, wanted in own.part.run(example).items():
        if found[name].shape != wanted.shape:
            raise RequestError(
                f"{where}: '{name}' is {found[name].shape} so, the teacher's {wanted.shape}; make smaller only what lies inside"
            )


def _shapes(part: Part) -> str:
    return ", ".join(f"{name} {shape}" for name, (shape, _) in part.signature.items())


def save_part(part: Part, folder: Path, own: TeacherPart, arch: Mapping[str, Any]) -> None:
    """Structure and weights of a smaller part."""
    save_model(part.net, folder, own.teacher.spec.family, {"arch": dict(arch), "part": own.name})


def load_part(folder: Path, own: TeacherPart) -> Part:
    """As :func:`save_part` wrote it, deployed."""
    made: list[Part] = []

    def build(name: str, kwargs: dict[str, Any]) -> nn.Module:
        net = family(name).build(**kwargs["arch"])
        made.append(parts_of(name, net, own.teacher.spec.input)[kwargs["part"]])
        return made[0].net

    net = load_model(folder, build)
    return deployed(Part(net, made[0].inputs, made[0].outputs), own.spec)
