"""The recipe's ``track``: where a run is logged beside its own report. Nothing about the result, so no hash and no key knows it."""

from __future__ import annotations

from importlib import util
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from rsedge.data.errors import missing_extra
from rsedge.recipe.section import Section

Tracker = Literal["mlflow", "tensorboard"]
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)


class TrackSection(Section):
    """Log a run to MLflow or TensorBoard while it goes on: parameters, curves, figures, gates, and the report."""

    to: Tracker = Field(description="which of them; its name alone takes the defaults", examples=["mlflow"])
    uri: str | None = Field(
        default=None,
        description="mlflow: server or store; default: MLFLOW_TRACKING_URI, else a file in the run's folder",
        examples=["http://localhost:5000"],
    )
    experiment: str = Field(default="rsedge", min_length=1, description="mlflow: the experiment that it belongs to")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"to": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_mlflow(self) -> TrackSection:
        if self.to != "mlflow" and self.model_fields_set - {"to"}:
            raise ValueError(f"uri and experiment are mlflow's; {self.to} writes into the run's folder")
        return self


def need_tracker(section: TrackSection | None) -> None:
    """
    Raises:
        MissingCapability: what logs is not installed.
    """
    if section is not None and util.find_spec(section.to) is None:
        raise missing_extra(section.to, "tracking", f"track: {section.to}")
