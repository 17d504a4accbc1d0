"""The recipe's ``student``: which network, and what it looks at where that is not all that the teacher looks at."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from rsedge.recipe.section import Section, unit


class StudentBand(Section):
    """A band that the teacher does not take: made of the teacher's, or with mean and std read from the data beside them."""

    name: str = Field(description="of the band", examples=["rededge"])
    wavelength_nm: float | None = Field(default=None, gt=0, description="centre", json_schema_extra=unit("nm"))
    width_nm: float = Field(
        default=0.0, ge=0, description="full width at half its response's height", json_schema_extra=unit("nm")
    )
    polarisation: Literal["VV", "VH", "HH", "HV"] | None = Field(default=None, description="of a radar band")
    scale: float = Field(default=1.0, description="read bands: physical = DN * scale + offset")
    offset: float = Field(default=0.0, description="see scale")
    nodata: float | None = Field(default=None, description="read bands: DN that marks a missing pixel")
    stretch: tuple[float, float] | None = Field(default=None, description="read bands, as in teacher.input")
    mean: float | None = Field(default=None, description="read bands: of the physical values")
    std: float | None = Field(default=None, gt=0, description="of the same values")

    @model_validator(mode="after")
    def _one_origin(self) -> StudentBand:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: a band with both is read from the data")
        if self.mean is None and self.wavelength_nm is None:
            raise ValueError(
                "give wavelength_nm, to make it of the teacher's bands, or mean and std, to read it from the data"
            )
        if self.mean is None and (self.scale, self.offset, self.nodata, self.stretch) != (1.0, 0.0, None, None):
            raise ValueError("scale, offset, nodata and stretch are of bands that are read: give mean and std")
        return self


class StudentSection(BaseModel):
    """Which student to build, and what it looks at; other fields go to its builder, or steer the choice of ``auto``."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    name: str = Field(
        default="slim-unet",
        description="a name that `rsedge students` lists; teacher: the teacher as it is; narrow-copy: a narrow one of it; "
        "auto: chosen by latency",
    )
    bands: StrictInt | tuple[str | StudentBand, ...] | None = Field(
        default=None,
        description="what it looks at: bands of the teacher by name, bands of another sensor, or how many of the teacher's, those "
        "that it misses most on the selection set; all where left out",
        examples=[["blue", "green", "red", "nir"]],
    )
    dates: StrictInt | tuple[StrictInt, ...] | None = Field(
        default=None,
        description="of a teacher of several dates: how many of the last ones, or their numbers from 0; all where left out",
        examples=[1],
    )
    sensor: str | None = Field(
        default=None, description="whose bands the made ones are, when it flies", examples=["planetscope"]
    )
    resample: Literal["response", "nearest"] = Field(
        default="response",
        description="how bands of another sensor are made; response: by wavelength and width; nearest: the nearest band",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def sees_less(self) -> bool:
        """Whether it has a contract of its own."""
        return self.bands is not None or self.dates is not None
