"""What a report shows but ``report.json`` does not hold: images, latency samples and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

ClassMap = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class TileAsset:
    """One place, side by side: ``rgb`` uint8 (H, W, 3); ``label``, ``teacher``, ``student`` class maps (H, W).

    255 in a class map means no data (or, in a label, not judged). ``before``: the first of two dates, where ``rgb`` is the second.
    """

    name: str
    rgb: npt.NDArray[np.uint8]
    teacher: ClassMap
    student: ClassMap
    label: ClassMap | None = None
    caption: str = ""
    before: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class CaptionAsset:
    """One picture, uint8 (H, W, 3), with what the teacher and the student say of it, and reference texts."""

    name: str
    rgb: npt.NDArray[np.uint8]
    teacher: str
    student: str
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxAsset:
    """One tile with objects: ``rgb`` uint8 (H, W, 3); per picture (labels, teacher, student) its boxes (n, 5): corners x0, y0,
    x1, y1 in pixels and class number; (n, 6) of turned ones, their angle last."""

    name: str
    rgb: npt.NDArray[np.uint8]
    boxes: Mapping[str, npt.NDArray[np.floating[Any]]]
    caption: str = ""


@dataclass(frozen=True)
class ImageAsset:
    """One place as several images saw or made it, each uint8 (H, W, 3), by its title; grids may differ."""

    name: str
    images: Mapping[str, npt.NDArray[np.uint8]]
    caption: str = ""


@dataclass(frozen=True)
class ReportAssets:
    """Everything beside ``report.json`` that :func:`rsedge.reports.html.render` can show; all parts are optional.

    ``latency_samples``: artefact name -> milliseconds per call, in the order taken. ``history``: phase name (distill,
    recovery, qat) -> one mapping per epoch or log step with the key ``epoch`` or ``step`` and figures such as
    ``loss``, ``agreement``, ``kappa``, ``lr``. ``student_name``: the target that tiles and boxes were made with.
    ``disagreement_maps``: target -> a raster beside the page that says where teacher and target differ.
    """

    tiles: Sequence[TileAsset] = ()
    latency_samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    history: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    student_name: str = "student"
    captions: Sequence[CaptionAsset] = ()
    boxes: Sequence[BoxAsset] = ()
    images: Sequence[ImageAsset] = ()
    disagreement_maps: Mapping[str, str] = field(default_factory=dict)
