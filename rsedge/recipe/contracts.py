"""Who looks at what: the contract that data are cut under, and each network's view of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.contract_view import ContractView, made_band, response_weights
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.recipe.student import StudentBand, StudentSection


@dataclass(frozen=True)
class Contracts:
    """The contract of the data, which holds every band that a network looks at, and the student's view of it."""

    data: InputSpec
    student: ContractView


def contracts(teacher: InputSpec, student: StudentSection) -> Contracts:
    """What the data are cut under and what the student sees of it: all that the teacher does, where the recipe says no more.

    A number of bands, which a stage chooses, is all of them until it did.

    Raises:
        RequestError: a band or date that there is not, a number of bands that is none, a band that cannot be made, or a word on
            made bands where none is made.
    """
    if isinstance(student.bands, int) and not 0 < student.bands < teacher.channels:
        raise RequestError(
            f"student.bands: {student.bands} of the teacher's {teacher.channels}: give 1 to {teacher.channels - 1}, or names"
        )
    asked = teacher.band_names if student.bands is None or isinstance(student.bands, int) else student.bands
    if not asked:
        raise RequestError("student.bands: none is named; leave it out for all of the teacher's")
    read = tuple(_read(b, teacher) for b in asked if isinstance(b, StudentBand) and b.mean is not None)
    if not any(isinstance(b, StudentBand) and b.mean is None for b in asked):
        _check_nothing_made(student)
    data = _with(teacher, read)
    bands, rows = zip(*(_band(b, student, teacher, data) for b in asked), strict=True)
    dates = _dates(student, teacher)
    changed: dict[str, object] = {"bands": bands}
    if dates is not None:
        single = len(dates) == 1 and teacher.is_image
        changed |= {"frames": len(dates), "layout": teacher.layout.replace("T", "") if single else teacher.layout}
    return Contracts(data, ContractView(data, _changed(teacher, changed), np.array(rows, dtype=np.float32), dates))


def _check_nothing_made(student: StudentSection) -> None:
    """
    Raises:
        RequestError: the recipe says whose the made bands are, or how they are made.
    """
    field = "sensor" if student.sensor is not None else "resample" if student.resample != "response" else None
    if field is not None:
        raise RequestError(
            f"student.{field}: no band is made of the teacher's; give student.bands with wavelength_nm, or leave {field} out"
        )


def _with(teacher: InputSpec, read: tuple[BandSpec, ...]) -> InputSpec:
    """The teacher's contract with what the student reads beside it."""
    return _changed(teacher, {"bands": (*teacher.bands, *read)}) if read else teacher


def _changed(spec: InputSpec, fields: Mapping[str, object]) -> InputSpec:
    """
    Raises:
        RequestError: such a contract cannot be.
    """
    try:
        return InputSpec.model_validate({**spec.model_dump(), **fields})
    except ValidationError as error:
        why = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise RequestError(f"student.bands: {why}") from error


def _read(band: StudentBand, teacher: InputSpec) -> BandSpec:
    if band.name in teacher.band_names:
        raise RequestError(f"student.bands: '{band.name}' is a band of the teacher's; name it without mean and std")
    fields = band.model_dump(exclude={"width_nm"})
    return BandSpec(**fields)


def _band(
    asked: str | StudentBand, student: StudentSection, teacher: InputSpec, data: InputSpec
) -> tuple[BandSpec, list[float]]:
    """The contract of one of the student's bands, and its shares of the data's."""
    if isinstance(asked, str):
        shares = {_named(asked, teacher): 1.0}
    elif asked.mean is not None:
        shares = {asked.name: 1.0}
    else:
        assert asked.wavelength_nm is not None
        where, closest = f"student.bands: '{asked.name}'", student.resample == "nearest"
        shares = response_weights(asked.wavelength_nm, asked.width_nm, teacher.bands, closest, where)
        band = made_band(asked.name, asked.wavelength_nm, student.sensor, shares, teacher)
        return band, [shares.get(n, 0.0) for n in data.band_names]
    only = next(iter(shares))
    return data.bands[data.band_names.index(only)], [shares.get(n, 0.0) for n in data.band_names]


def _named(name: str, teacher: InputSpec) -> str:
    """The teacher's own name of a band that the recipe names."""
    if name in teacher.band_names:
        return name
    if name in teacher.common_names:
        return teacher.band_names[teacher.common_names.index(name)]
    known = list(dict.fromkeys([*teacher.band_names, *teacher.common_names]))
    raise RequestError(
        f"student.bands: '{name}' is no band of the teacher's{nearest(name, known)}; it has {', '.join(teacher.band_names)}. "
        "A band of another sensor takes wavelength_nm, one that is read from the data mean and std"
    )


def _dates(student: StudentSection, teacher: InputSpec) -> tuple[int, ...] | None:
    """Numbers of the dates that the student sees; None where it sees all.

    Raises:
        RequestError: the teacher has no dates, or not that many.
    """
    if student.dates is None:
        return None
    if "T" not in teacher.layout:
        raise RequestError(f"student.dates: the teacher's input {teacher.layout} has no dates; leave it out")
    asked = student.dates
    found = tuple(range(teacher.frames - asked, teacher.frames)) if isinstance(asked, int) else asked
    if not found or min(found) < 0 or max(found) >= teacher.frames or len(set(found)) < len(found):
        raise RequestError(
            f"student.dates: {asked} of a teacher of {teacher.frames} dates: give 1 to {teacher.frames}, or different numbers "
            f"from 0 to {teacher.frames - 1}"
        )
    return None if found == tuple(range(teacher.frames)) else found
