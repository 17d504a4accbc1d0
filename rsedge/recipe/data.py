"""The recipe's ``data``: scenes or samples, how they are split, and how training views go from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from rsedge.recipe.section import Fraction, Range, Section, Unit, unit

ChangeKind = Literal[
    "resolution", "gain", "band-gain", "offset", "noise", "stripes", "band-shift", "levels", "haze", "low-sun", "dark-ground",
    "bright-ground",
]  # fmt: skip
"""Rows of :data:`rsedge.data.scenes.changes.CHANGES`, which needs scipy."""


class SceneSection(Section):
    """One scene or scene collection: a named source, or a file with what its numbers mean."""

    source: str | None = Field(
        default=None, description="a name that `rsedge sources` lists", examples=["ukis-sentinel2"]
    )
    path: Path | None = Field(default=None, description="a GeoTIFF, read as in flight", examples=["scene.tif"])
    bands: tuple[str, ...] | None = Field(
        default=None,
        description="names of all the file's bands in its order, '-' for one to leave out",
        examples=[["blue", "green", "red", "nir"]],
    )
    sensor: str | None = Field(
        default=None, description="whose band numbers the file's names are", examples=["sentinel-2"]
    )
    scale: float | None = Field(
        default=None, description="physical = value * scale + offset, over the file's own tags", examples=[1e-4]
    )
    offset: float | None = Field(default=None, description="see scale", examples=[-0.1])
    nodata: float | None = Field(
        default=None, description="a value of missing pixels, beside those the file declares", examples=[0]
    )
    nan_nodata: bool = Field(default=False, description="NaN and infinity are missing pixels")
    any_gsd: bool = Field(default=False, description="take pixels of a size that the teacher was not made for")
    gsd_m: float | None = Field(
        default=None,
        gt=0,
        description="ground sampling distance, over the file's own",
        examples=[10.0],
        json_schema_extra=unit("m"),
    )
    quantity: Literal["toa_reflectance", "boa_reflectance"] | None = Field(
        default=None,
        description="what the numbers are; refused where the teacher takes something else",
        examples=["boa_reflectance"],
    )

    @model_validator(mode="after")
    def _described(self) -> SceneSection:
        self.check_origin()
        return self

    def check_origin(self) -> None:
        """Raises ValueError where it is not clear which scene is meant, or what its numbers are."""
        if (self.source is None) == (self.path is None):
            raise ValueError("give exactly one of 'source' (a named source) and 'path' (a file)")
        fields = {n: f for n, f in SceneSection.model_fields.items() if n not in ("source", "path")}
        described = [n for n, f in fields.items() if getattr(self, n) != f.default]
        if self.source is not None and described:
            raise ValueError(f"a named source describes itself; {', '.join(described)} only go with 'path'")


class LabelsSection(Section):
    """A label raster on its scene's grid, and what its values are."""

    bare_path: ClassVar[bool] = True
    path: Path = Field(description="a GeoTIFF of one band on the scene's grid", examples=["labels.tif"])
    map: dict[int, int | str] | None = Field(
        default=None,
        description="value -> class name, class number or ignore; default: values are class numbers",
        examples=[{0: "land", 255: "water", 9: "ignore"}],
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @field_validator("map", mode="before")
    @classmethod
    def _whole_keys(cls, value: Any) -> Any:
        """JSON has no keys but text."""
        if not isinstance(value, Mapping):
            return value
        if any(isinstance(v, bool) for pair in value.items() for v in pair):
            raise ValueError(
                "YAML reads yes, no, on, off, true and false as truth values; write a class of that name in quotes"
            )
        return {int(k) if re.fullmatch(r"-?\d+", str(k)) else k: v for k, v in value.items()}


def _labels_kind(value: Any) -> str:
    return "(file)" if isinstance(value, str | Path | Mapping | LabelsSection) else "(own)"


Labels = Annotated[Annotated[bool, Tag("(own)")] | Annotated[LabelsSection, Tag("(file)")], Discriminator(_labels_kind)]


class TestSection(SceneSection):
    """The scene that judges every artefact; nothing is chosen by it."""

    labels: Labels = Field(
        default=True, description="use the source's labels, or a label GeoTIFF (its path, or path and map) for 'path'"
    )
    fraction: Fraction = Field(default=0.25, description="share of its spatial blocks held out")
    simulated_clouds: int = Field(
        default=0,
        ge=0,
        le=64,
        description="tiles under a simulated cloud field each, at least one a tile; their masks are the labels",
    )

    @property
    def label_file(self) -> LabelsSection | None:
        """The label raster, where one is given."""
        return None if isinstance(self.labels, bool) else self.labels


class SelectionSection(TestSection):
    """What choices (early stop, pruning, INT8 settings) look at: blocks of the test scene, or a scene of its own."""

    fraction: Fraction = Field(default=0.15, description="share of the scene's spatial blocks held out")

    @property
    def is_own(self) -> bool:
        """Whether it is another scene than the one that judges."""
        return self.source is not None or self.path is not None

    def check_origin(self) -> None:
        if self.is_own:
            super().check_origin()
            return
        fields = {n: f for n, f in SelectionSection.model_fields.items() if n != "fraction"}
        given = [n for n, f in fields.items() if getattr(self, n) != f.default]
        if given:
            raise ValueError(
                f"{', '.join(given)}: blocks of data.test's scene are read as it says; give 'source' or 'path'"
            )


class CalibrationSection(Section):
    """Tiles that set the ranges of the INT8 model; never from what is held out."""

    tiles: int = Field(
        default=64, ge=0, description="tiles or samples that set the ranges", json_schema_extra=unit("tiles")
    )
    fraction: Fraction = Field(default=0.1, description="share of every training scene's blocks kept for calibration")
    draws: int = Field(
        default=1, ge=1, le=16, description="how often tiles are drawn; further draws show how sure a choice is"
    )
    augmented: bool = Field(
        default=False, description="tiles varied as training views are, for inputs brighter or darker than the scenes"
    )


class CloudsSection(Section):
    """Ranges that each simulated cloud layer is drawn from (``data/scenes/clouds.py``)."""

    cover: Range = Field(default=(0.03, 0.6), description="share of the sky that is clouded")
    optical_thickness: Range = Field(default=(0.5, 9.0), description="of the thickest part")
    edge: Range = Field(
        default=(0.5, 2.2),
        description="width of the rise from a cloud's edge to its full thickness; small is hard",
    )
    profile: Range = Field(
        default=(0.8, 1.6), description="rise from the edge inwards: below 1 a firm edge, above 1 a veil"
    )
    structure: Range = Field(
        default=(0.5, 4.0), description="size of the clouds' structures: 4 is eight times that of 0.5"
    )
    height_m: Range = Field(
        default=(300.0, 6000.0),
        description="of the cloud over ground: how far its shadow falls",
        json_schema_extra=unit("m"),
    )
    sun_zenith_deg: Range = Field(
        default=(15.0, 72.0), description="of the sun: how far the shadow falls", json_schema_extra=unit("degrees")
    )
    shadow_strength: Range = Field(
        default=(0.65, 1.0), description="share of the direct light that the thickest cloud takes"
    )
    brightness: Range = Field(default=(0.38, 1.0), description="reflectance of the cloud's top")
    path_reflectance: Range = Field(
        default=(0.0, 0.0), description="clear air before the ground, at 550 nm: surface reflectance seen from above it"
    )
    label_thickness: Range = Field(
        default=(0.03, 0.2), description="simulated labels: clear up to the first, cloud above the second, none between"
    )
    label_shadow: Range = Field(
        default=(0.1, 0.35), description="the same of shadow, by the share of direct light that is taken"
    )

    @model_validator(mode="after")
    def _ordered(self) -> CloudsSection:
        for name in type(self).model_fields:
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}: [{low:g}, {high:g}] must be two numbers from 0 on, the smaller one first")
        return self


class AugmentSection(Section):
    """How far training views go from the scenes (``data/scenes/augment.py``); shares are probabilities per view."""

    gsd_m: Range = Field(
        default=(8.0, 60.0), description="ground sampling distance of views", json_schema_extra=unit("m")
    )
    mix: Unit = Field(default=0.3, description="another crop is laid over a part")
    spectra: Unit = Field(default=0.1, description="one pixel's spectrum is laid over a part, as plain ground")
    clouds: Unit = Field(default=0.65, description="a simulated cloud layer")
    second_layer: Unit = Field(default=0.3, description="a second layer where there is one")
    darken: Unit = Field(default=0.4, description="the ground is darkened")
    darken_to: Range = Field(default=(0.35, 1.0), description="factor by which it is")
    gain: float = Field(default=0.1, ge=0, description="spread of a factor on all bands together (of its logarithm)")
    band_gain: float = Field(default=0.05, ge=0, description="spread of a factor on each band")
    offset: float = Field(
        default=0.008, ge=0, description="spread of what is added", json_schema_extra=unit("reflectance")
    )
    haze: Unit = Field(default=0.2, description="haze, more of it at short wavelengths")
    blur: Unit = Field(default=0.25, description="the optics blur")
    noise: Unit = Field(default=0.2, description="the sensor adds noise")
    saturate: Unit = Field(default=0.05, description="bright pixels are cut off")
    plain: Unit = Field(default=0.3, description="crops as they are")
    changes: Unit = Field(
        default=0.0, description="further changes, of kinds of `data/scenes/changes.py`; of plain ones too"
    )
    kinds: tuple[ChangeKind, ...] = Field(
        default=(), description="of these changes; all when not given", examples=[["resolution", "haze"]]
    )
    at_once: int = Field(default=1, ge=1, description="how many of these kinds a changed view has at most")
    steady: bool = Field(
        default=False,
        description="views are changed when they are read, anew each time, and teach the teacher's answer from before; else once, "
        "and they teach its answer on the changed view",
    )
    materials: Unit = Field(
        default=0.0, description="ground of `data/scenes/materials.yaml` laid in; of those that are not plain"
    )


class DataSection(Section):
    """Scenes and how they are split."""

    renamed: ClassVar[Mapping[str, str]] = {
        "validation": "write the scene under data.test, which judges; data.selection: {fraction: 0.15} is what choices look at"
    }
    train: tuple[SceneSection, ...] = Field(
        min_length=1,
        description="scenes that views are cut from; they need no labels",
        examples=[[{"source": "ukis-sentinel2"}, {"path": "scene.tif"}]],
    )
    test: TestSection = Field(
        description="judges every artefact; chooses nothing", examples=[{"path": "scene.tif", "labels": "labels.tif"}]
    )
    selection: SelectionSection = Field(default=SelectionSection(), description="what choices look at")
    calibration: CalibrationSection = Field(default=CalibrationSection(), description="sets the ranges of INT8 models")
    block: int = Field(
        default=64, ge=8, description="edge of a spatial block, which has one role", json_schema_extra=unit("pixels")
    )
    guard: int = Field(
        default=4, ge=0, description="along block borders: belongs to no role", json_schema_extra=unit("pixels")
    )
    clouds: CloudsSection = Field(default=CloudsSection(), description="ranges of simulated clouds")
    augment: AugmentSection = Field(default=AugmentSection(), description="how far views go from the scenes")

    @property
    def held_out(self) -> dict[Literal["test", "selection"], TestSection]:
        """The scenes given for held-out roles, by role; a selection among the test scene's blocks is not one."""
        own: dict[Literal["test", "selection"], TestSection] = (
            {"selection": self.selection} if self.selection.is_own else {}
        )
        return {"test": self.test, **own}


class SampleAugmentSection(Section):
    """How far training samples go from those given (``data/samples/views.py``); shares are probabilities per sample.

    Labels are never looked at: the teacher answers for what comes out.
    """

    mix: Unit = Field(
        default=0.5,
        description="blend with another sample, measured bands only; of images with boxes, a part of another one",
    )
    apart: Unit = Field(
        default=0.0, description="of the blends: each sensor's bands with a sample and a share of its own"
    )
    gain: float = Field(default=0.1, ge=0, description="spread of a factor per band")
    noise: float = Field(default=0.02, ge=0, description="share of a band's spread over the samples, per value")
    drop: Unit = Field(default=0.0, description="a run of times loses bands, where they have a nodata value")
    shift: Unit = Field(default=0.0, description="series start at another time")
    flip: bool = Field(default=True, description="images are flipped and turned")
    jitter_deg: tuple[float, ...] = Field(
        default=(),
        description="places (of series too) move by one of these spreads",
        examples=[[1.0, 10.0]],
        json_schema_extra=unit("degrees"),
    )
    uniform: Unit = Field(default=0.0, description="places anywhere on the sphere instead")
    plain: Unit = Field(default=0.2, description="samples as they are")
    zoom: Unit = Field(default=0.0, description="images with boxes are enlarged or shrunk, by at most about a third")


class SampleSetSection(Section):
    """A set of samples: a name (`rsedge sources`), or a table (.parquet, .csv, .npz) with what its columns are."""

    source: str = Field(
        min_length=1,
        description="a name that `rsedge sources` lists, or the path of a table",
        examples=["torchgeo:eurosat", "fields.parquet"],
    )
    root: Path | None = Field(default=None, description="the folder in which the set lies", examples=["EuroSAT"])
    options: dict[str, Any] = Field(
        default_factory=dict, description="of a table or a survey set", examples=[{"tile": 256}]
    )
    limit: int | None = Field(
        default=None, ge=2, description="at most so many samples, drawn by the seed", examples=[2000]
    )


class SampleTestSection(Section):
    """What judges, where the publisher of the samples names no test split."""

    fraction: Fraction = Field(default=0.25, description="share of the samples, in whole groups")


class SampleSelectionSection(Section):
    """What choices look at, where the publisher of the samples names no validation split."""

    fraction: Fraction = Field(default=0.15, description="share of the samples, in whole groups")


class SampleDataSection(Section):
    """Samples and how they are split; whole groups (regions, scenes) are held out."""

    renamed: ClassVar[Mapping[str, str]] = {
        "fraction": "write test: {fraction: ...} for what judges and selection: {fraction: ...} for what choices look at"
    }
    samples: SampleSetSection = Field(
        description="the set", examples=[{"source": "torchgeo:eurosat", "root": "EuroSAT"}]
    )
    test: SampleTestSection = Field(default=SampleTestSection(), description="judges every artefact; chooses nothing")
    selection: SampleSelectionSection = Field(default=SampleSelectionSection(), description="what choices look at")
    folds: int = Field(default=0, ge=0, description="cross-validate over so many folds of groups; 0 or 1 turns it off")
    calibration: CalibrationSection = Field(default=CalibrationSection(), description="sets the ranges of INT8 models")
    augment: SampleAugmentSection = Field(
        default=SampleAugmentSection(), description="how far training samples go from those given"
    )


def _data_kind(value: Any) -> str:
    samples = "samples" in value if isinstance(value, Mapping) else isinstance(value, SampleDataSection)
    return "(samples)" if samples else "(scenes)"


Data = Annotated[
    Annotated[DataSection, Tag("(scenes)")] | Annotated[SampleDataSection, Tag("(samples)")], Discriminator(_data_kind)
]
