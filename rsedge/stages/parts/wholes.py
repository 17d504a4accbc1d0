"""What runs between a recipe's parts, with what the teacher's row says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsedge.recipe.parts import PartsRecipe
from rsedge.runtimes.wholes.base import Whole
from rsedge.runtimes.wholes.table import whole_of
from rsedge.stages.parts.teachers import TeacherPart

SAMPLER = "sampler"


def made_whole(recipe: PartsRecipe, teachers: Mapping[str, TeacherPart]) -> Whole[Any]:
    """The whole under the recipe's settings; a sampler's are laid over those of the denoiser's row.

    Raises:
        RequestError: unknown, or settings or parts that do not fit.
    """
    settings = recipe.whole.settings
    rows = [own.teacher.spec.sampler for own in teachers.values()]
    known = next((row.model_dump(mode="json") for row in rows if row is not None), None)
    if known is not None:
        settings = {**settings, SAMPLER: {**known, **settings.get(SAMPLER, {})}}
    return whole_of(recipe.whole.name, list(recipe.parts), settings)
