"""What all sections of a recipe share. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

Unit = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Range = tuple[float, float]


def unit(name: str) -> JsonDict:
    """``json_schema_extra`` of a field that is measured in something: editors and the recipe reference show it."""
    return {"unit": name}


class Section(BaseModel):
    """Base of every recipe section: unknown fields and wrong types are errors, values do not change."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Fields of earlier versions, each with what to write instead."""
    aside: ClassVar[tuple[str, ...]] = ()
    """Fields that say nothing about the result: no hash and no key knows them."""
    bare_path: ClassVar[bool] = False
    """Whether a text alone stands for it and is the name of a file."""
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


def one_of(section: Section, names: Sequence[str]) -> str:
    given = [n for n in names if getattr(section, n) is not None]
    if len(given) != 1:
        found = f"found {', '.join(given)}" if given else "found none"
        raise ValueError(f"give exactly one of {', '.join(names)}; {found}")
    return given[0]
