"""The table of survey data sets that torchgeo can read: ``data/sets/datasets.yaml``, checked here. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rsedge.data.band_names import SENSORS
from rsedge.data.bands import Layout
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.record import Record

TORCHGEO = "torchgeo:"
Task = Literal["classification", "multilabel", "segmentation", "change", "detection", "none"]


class TorchgeoOptions(Record):
    """How much of a set is read, and how large images are cut."""

    splits: list[str] | None = Field(
        default=None, description="of train, validation, test; default all that have labels"
    )
    limit: int | None = Field(default=None, ge=1, description="images to read, spread evenly over the splits")
    tile: int | None = Field(default=None, ge=8, description="cut images into tiles of this edge (pixels)")
    tiles_per_image: int | None = Field(default=None, ge=1, description="tiles kept of an image, spread evenly")
    frames: int | None = Field(
        default=None, ge=1, description="first images of each sample in time; 1 gives layout CHW"
    )


class DatasetRow(BaseModel):
    """One data set: ``torchgeo:<name>``.

    Attributes:
        cls: torchgeo's class (``class`` in the file).
        task: what its labels are; ``none`` for pretraining sets.
        arguments: of the class, beside root and split.
        sensor: whose bands they are, one of :data:`rsedge.data.band_names.SENSORS`; None for several or others.
        bands: names in the order in which the class stacks them.
        scale: one for all bands or one per band: physical = raw * scale + offset.
        quantity: the physical quantity, by the names that teachers' rows use.
        frames: images of one sample; above 1 the layout is ``TCHW``.
        size: edge of the images (pixels); None where it differs.
        image: torchgeo's key of the image.
        boxes: torchgeo's keys of boxes (x low, y low, x high, y high) and of their classes.
        oriented: its boxes are four corners each (x1, y1 to x4, y4), of which the smallest box around is taken.
        first_label: stored value of the first class; values without a class are unknown.
        splits: ours -> torchgeo's; empty where the class has none.
        numbered: pattern of folders whose names are the samples' numbers, where the class takes any root for a whole set.
        draws: the class draws among the images of a place.
        where: who publishes it.
        folders: what torchgeo expects under root.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    cls: str = Field(alias="class")
    title: str
    task: Task
    arguments: dict[str, Any] = {}
    sensor: str | None = None
    bands: tuple[str, ...] = Field(min_length=1)
    scale: float | tuple[float, ...] = 1.0
    offset: float = 0.0
    quantity: str
    frames: int = Field(default=1, ge=1)
    gsd_m: float | None = Field(default=None, gt=0)
    size: int | None = Field(default=None, gt=0)
    image: str = "image"
    boxes: tuple[str, str] | None = None
    oriented: bool = False
    first_label: int = 0
    splits: dict[Literal["train", "validation", "test"], str] = {}
    numbered: str | None = None
    draws: bool = False
    classes: tuple[str, ...] = ()
    licence: str
    where: str
    folders: str
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> DatasetRow:
        if isinstance(self.scale, tuple) and len(self.scale) != len(self.bands):
            raise ValueError(f"{self.name}: {len(self.bands)} bands need one scale or {len(self.bands)}")
        if self.sensor is not None and self.sensor not in SENSORS:
            raise ValueError(f"{self.name}: sensor is none of {', '.join(SENSORS)}")
        if (self.task == "none") == bool(self.classes):
            raise ValueError(f"{self.name}: classes go with a task, and a task with classes")
        if (self.task == "detection") != (self.boxes is not None):
            raise ValueError(f"{self.name}: boxes go with task detection")
        return self

    @property
    def layout(self) -> Layout:
        return "TCHW" if self.frames > 1 else "CHW"


@cache
def datasets() -> dict[str, DatasetRow]:
    """All rows by name."""
    text = resources.files("rsedge.data.sets").joinpath("datasets.yaml").read_text(encoding="utf-8")
    rows = [DatasetRow.model_validate(row) for row in yaml.safe_load(text)]
    found = {row.name: row for row in rows}
    if len(found) < len(rows):
        raise ValueError("datasets.yaml: a name occurs twice")
    return found


def dataset_row(name: str) -> DatasetRow:
    """A row by name.

    Raises:
        RequestError: unknown; names the nearest.
    """
    rows = datasets()
    if name not in rows:
        raise RequestError(
            f"data set 'torchgeo:{name}' is unknown{nearest(name, list(rows))}; known: {', '.join(rows)}"
        )
    return rows[name]


@dataclass(frozen=True)
class SceneReference:
    """Images of a survey set as scenes: ``torchgeo:<set>/<split>/<number>``, or ``<first>-<last>`` for several."""

    row: DatasetRow
    split: str
    numbers: range

    @property
    def names(self) -> list[str]:
        """One name per image."""
        return [f"{TORCHGEO}{self.row.name}/{self.split}/{number}" for number in self.numbers]


def scene_reference(name: str) -> SceneReference:
    """Reads a scene's name.

    Raises:
        RequestError: unknown set or split, no class maps, or no number.
    """
    found = re.fullmatch(rf"{TORCHGEO}([^/]+)/([^/]+)/(\d+)(?:-(\d+))?", name)
    if found is None:
        raise RequestError(
            f"scene '{name}': write {TORCHGEO}SET/SPLIT/NUMBER or NUMBER-NUMBER, e.g. {TORCHGEO}loveda/train/0-9"
        )
    row, split = dataset_row(found[1]), found[2]
    if row.task != "segmentation":
        able = ", ".join(n for n, r in datasets().items() if r.task == "segmentation")
        raise RequestError(f"scene '{name}': '{row.name}' has no class maps; sets that have: {able}")
    if split not in row.splits:
        raise RequestError(f"scene '{name}': no split '{split}'; it has {', '.join(row.splits)}")
    numbers = range(int(found[3]), int(found[4] or found[3]) + 1)
    if not numbers:
        raise RequestError(f"scene '{name}': the first number is larger than the last")
    return SceneReference(row, split, numbers)
