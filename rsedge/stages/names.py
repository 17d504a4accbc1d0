"""Names of the stages of any recipe."""

from __future__ import annotations

from rsedge.recipe.reading import AnyRecipe
from rsedge.recipe.schema import Recipe
from rsedge.stages.parts.table import part_stages
from rsedge.stages.table import Stage, stages_of


def rows_of(recipe: AnyRecipe) -> list[Stage]:
    """The stages of a recipe, of one network or of several parts, in the order they run."""
    return stages_of(recipe) if isinstance(recipe, Recipe) else part_stages(recipe)


def stage_names(recipe: AnyRecipe) -> list[str]:
    """Their names."""
    return [row.name for row in rows_of(recipe)]
