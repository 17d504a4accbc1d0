"""Images of survey data sets as the scenes of a recipe: ``source: torchgeo:loveda/train/0-9``."""

from __future__ import annotations

from collections.abc import Sequence

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.sets.datasets import TORCHGEO, SceneReference, scene_reference
from rsedge.recipe.data import SceneSection, TestSection
from rsedge.recipe.schema import Recipe


def survey(section: SceneSection) -> SceneReference | None:
    """What a section names, or None where it names no survey set.

    Raises:
        RequestError: unknown set or split, no class maps, or no number.
    """
    named = section.source is not None and section.source.startswith(TORCHGEO)
    return scene_reference(section.source or "") if named else None


def one_by_one(section: SceneSection) -> list[SceneSection]:
    """A section per image."""
    reference = survey(section)
    if reference is None:
        return [section]
    return [section.model_copy(update={"source": name}) for name in reference.names]


def problems(where: str, section: SceneSection) -> list[str]:
    """What is wrong with a section's name, before anything is read."""
    try:
        reference = survey(section)
    except RequestError as error:
        return [f"{where}.source: {error}"]
    if reference is not None and isinstance(section, TestSection) and len(reference.numbers) > 1:
        return [f"{where}.source: '{section.source}' names {len(reference.numbers)} images; a held-out scene is one"]
    return []


def check_contract(recipe: Recipe, spec: InputSpec, classes: Sequence[str]) -> None:
    """Holds survey scenes against the teacher.

    Raises:
        RequestError: another quantity than the reflectance a teacher takes, or labels of other classes than the teacher's.
    """
    for section in (*recipe.scenes.train, *recipe.scenes.held_out.values()):
        reference = survey(section)
        if reference is None:
            continue
        row, where = reference.row, f"data: {section.source}"
        if spec.quantity.endswith("reflectance") and spec.quantity not in row.quantity.split(", "):
            raise RequestError(f"{where} is {row.quantity}, teacher '{recipe.teacher.name}' takes {spec.quantity}")
        labelled = isinstance(section, TestSection) and section.labels is True and not section.simulated_clouds
        if labelled and _plain(row.classes) != _plain(classes):
            raise RequestError(
                f"{where}: its classes ({', '.join(row.classes)}) are not those of teacher '{recipe.teacher.name}' "
                f"({', '.join(classes)}); write labels: false to judge by the teacher's outputs alone"
            )


def _plain(names: Sequence[str]) -> list[str]:
    return [name.casefold().replace("_", " ").replace("-", " ") for name in names]
