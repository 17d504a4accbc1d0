"""The recipe's ``importance``: which bands matter to teacher and student, for the report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rsedge.recipe.section import Section


class ImportanceSection(Section):
    """Measure on the selection set what is lost without each band; a band that is taken away holds its mean everywhere."""

    of: tuple[Literal["teacher", "student"], ...] = Field(
        default=("student",), min_length=1, description="whose bands", examples=[["teacher", "student"]]
    )
    orders: int = Field(
        default=0,
        ge=0,
        description="random orders of bands for Shapley values, exact where all subsets are as few; 0: each band alone",
        examples=[32],
    )
    inputs: int = Field(default=32, ge=1, description="of the selection set, those with the most labels")
